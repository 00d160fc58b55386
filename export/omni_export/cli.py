"""The command `omni-export`. Exit codes: 0 done, 1 a problem told in one line, 2 wrong usage."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omni_sdk.errors import OmniError


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        if arguments.command == "onnx":
            return _onnx(arguments)
        if arguments.command == "variants":
            return _variants(arguments)
        if arguments.command == "tensorrt":
            return _tensorrt(arguments)
        return _validate(arguments)
    except (OmniError, OSError) as e:
        print(f"omni-export: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("omni-export: interrupted", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    parser = argparse.ArgumentParser(prog="omni-export", description="Checkpoints to bundles.")
    commands = parser.add_subparsers(dest="command", required=True)
    onnx = commands.add_parser("onnx", help="export checkpoints to a bundle of ONNX graphs")
    onnx.add_argument("--grs", metavar="CHECKPOINT", help="thinker: a directory or a hub id")
    onnx.add_argument("--dus", metavar="CHECKPOINT", help="SAM 2.1: a directory or a hub id")
    onnx.add_argument("--out", metavar="BUNDLE", type=Path, required=True, help="directory to make")
    onnx.add_argument("--name", help="the bundle's name (default: the directory's)")
    onnx.add_argument("--description", default="", help="one sentence about it")
    for half in ("grs", "dus"):
        onnx.add_argument(f"--{half}-license", help="where its model card names none")
        onnx.add_argument(f"--{half}-revision", help="branch, tag or commit on the hub")
    onnx.add_argument("--local-files-only", action="store_true", help="never use the network")
    onnx.add_argument(
        "--compact",
        action="store_true",
        help="store weights as float16 where that is exact (half the size for float16 checkpoints)",
    )
    onnx.add_argument("--force", action="store_true", help="replace an existing bundle")
    variants = commands.add_parser("variants", help="add float16, int8 or int4 graphs to a bundle")
    variants.add_argument("bundle", metavar="BUNDLE", type=Path)
    variants.add_argument("--out", metavar="BUNDLE", type=Path, help="to make")
    variants.add_argument(
        "--variant",
        metavar="NAME",
        action="append",
        default=[],
        help="fp16 (all graphs); int8, int4, fused, fused-int8, fused-int4, fused-fp16 (decoder); "
        "fused-attention (tracker); may be repeated",
    )
    variants.add_argument(
        "--target",
        metavar="NAME",
        help="make what cpu, cuda, tensorrt or jetson is best served by; prints the plan",
    )
    variants.add_argument(
        "--calibrate",
        metavar="CLIP",
        type=Path,
        nargs="+",
        default=[],
        help="fit 4-bit weights (GPTQ) to what the decoder sees on these videos, and count tokens there",
    )
    variants.add_argument("--question", help="asked about each of these videos")
    variants.add_argument("--print-only", action="store_true", help="print the plan of --target")
    variants.add_argument("--force", action="store_true", help="replace an existing bundle")
    _declare_tensorrt(commands.add_parser("tensorrt", help="build TensorRT plans for this machine"))
    validate = commands.add_parser("validate", help="verify a bundle and load its graphs")
    validate.add_argument("bundle", metavar="BUNDLE", type=Path)
    return parser


def _declare_tensorrt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=Path)
    parser.add_argument("--graph", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--variant", action="append", default=[], help="e.g. fp16; repeatable")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU")
    parser.add_argument(
        "--cache",
        type=Path,
        help="directory of plans (default: plans in the cache directory, where runs look)",
    )
    parser.add_argument("--cache-gb", type=float, default=50.0, help="cap on the plans together")
    parser.add_argument("--workspace-mb", type=int, default=2048)
    parser.add_argument("--optimization-level", type=int, default=3, help="0 to 5")
    for name in ("objects", "patches", "chunks", "points", "prompt", "new-tokens"):
        parser.add_argument(f"--max-{name}", type=int, help=f"largest number of {name} in a call")
    parser.add_argument(
        "--print-only",
        action="store_true",
        help="print the trtexec lines and build nothing; works without TensorRT",
    )


def _tensorrt(arguments: argparse.Namespace) -> int:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.engines.plans import BuildFlags, PlanCache, plan_directory, timing_cache_path
    from omni_sdk.graphs.profiles import ShapeLimits

    from omni_export.tensorrt_build import build_plans, plan_requests, trtexec_line

    sizes = {k: v for k, v in vars(arguments).items() if k.startswith("max_") and v is not None}
    try:
        limits = ShapeLimits(**sizes)
        flags = BuildFlags(arguments.workspace_mb, arguments.optimization_level)
    except ValueError as e:
        print(f"omni-export tensorrt: {e}", file=sys.stderr)
        return 2
    bundle = Bundle.open(arguments.bundle).with_variants(*arguments.variant)
    requests = plan_requests(bundle, arguments.graph, limits, flags)
    directory = arguments.cache or plan_directory()
    if arguments.print_only:
        for request in requests:
            plan = directory / f"{request.onnx.stem}.plan"
            print(trtexec_line(request, plan, directory / "timing.cache"))
        return 0
    from omni_sdk.engines.cuda import Device
    from omni_sdk.engines.tensorrt_api import built_for_cuda, check_driver, load_library

    trt = load_library()
    device = Device(arguments.device)
    check_driver(trt, device.cuda_version, built_for_cuda())
    capability = device.compute_capability
    paths = build_plans(
        bundle,
        requests,
        PlanCache(directory, int(arguments.cache_gb * (1 << 30))),
        trt=trt,
        compute_capability=capability,
        progress=lambda line: print(line, file=sys.stderr),
    )
    timing = timing_cache_path(
        directory, tensorrt=str(trt.__version__), compute_capability=capability
    )
    for request, path in zip(requests, paths, strict=True):
        print(f"{request.graph}: {path}")
        print(trtexec_line(request, path, timing))
    return 0


def _onnx(arguments: argparse.Namespace) -> int:
    if arguments.grs is None and arguments.dus is None:
        print("omni-export onnx: expected --grs, --dus or both", file=sys.stderr)
        return 2
    from omni_export.bundle_writer import ExportOptions, export_bundle

    values = vars(arguments)
    options = ExportOptions(
        grs=arguments.grs,
        dus=arguments.dus,
        name=arguments.name,
        description=arguments.description,
        licenses={h: v for h in ("grs", "dus") if (v := values[f"{h}_license"]) is not None},
        revisions={h: v for h in ("grs", "dus") if (v := values[f"{h}_revision"]) is not None},
        local_files_only=arguments.local_files_only,
        compact=arguments.compact,
        force=arguments.force,
    )
    manifest = export_bundle(arguments.out, options, lambda line: print(line, file=sys.stderr))
    for row in manifest.parity:
        print(f"{row.subject}: {row.measure} {row.value:.2g} (allowed {row.tolerance:.2g})")
    size = sum(f.size for f in manifest.files.values())
    print(f"{arguments.out}: {manifest.name}, {len(manifest.graphs)} graphs, {size / 1e6:.1f} MB")
    return 0


def _variants(arguments: argparse.Namespace) -> int:
    names = list(dict.fromkeys(arguments.variant))
    if arguments.target is not None:
        from omni_sdk.bundle.bundle import Bundle

        from omni_export.targets import plan_target

        plan = plan_target(arguments.target, Bundle.open(arguments.bundle).manifest)
        print("\n".join(plan.lines()))
        names += [name for name in plan.variants if name not in names]
    if arguments.print_only:
        return 0
    if arguments.out is None:
        print("omni-export variants: expected --out BUNDLE", file=sys.stderr)
        return 2
    from omni_export.variants import add_variants

    manifest = add_variants(
        arguments.bundle,
        arguments.out,
        names,
        force=arguments.force,
        progress=lambda line: print(line, file=sys.stderr),
        clips=arguments.calibrate,
        **({} if arguments.question is None else {"question": arguments.question}),
    )
    for row in manifest.parity:
        if "@" in row.subject:
            print(f"{row.subject}: {row.measure} {row.value:.2g} (allowed {row.tolerance:.2g})")
    for name, graph in manifest.graphs.items():
        for variant, spec in graph.variants.items():
            sizes = [
                sum(manifest.files[f].size for f in (g.file, *g.data)) / 1e6 for g in (graph, spec)
            ]
            print(f"{name}@{variant}: {sizes[1]:.2f} MB (was {sizes[0]:.2f}), {spec.precision}")
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from omni_export.bundle_writer import validate_bundle

    manifest = validate_bundle(arguments.bundle).manifest
    size = sum(f.size for f in manifest.files.values())
    halves = " and ".join(h for h in ("grs", "dus") if getattr(manifest, h) is not None)
    print(
        f"{arguments.bundle}: sound; {halves}, {len(manifest.graphs)} graphs, {size / 1e6:.1f} MB, "
        f"{len(manifest.parity)} parity rows"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
