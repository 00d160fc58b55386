"""Checkpoint -> bundle of ONNX graphs -> engines, with a parity report.

Note [One source of names, axes, dummy inputs and tolerances]
    Names, dtypes and axes of a graph stand once: in `thinker_graphs.thinker_plans` and in
    `omni_sdk.dus.sam2.graphs.graph_specs`. The exporter traces with them and the manifest carries them as
    `GraphSpec`; whatever comes later (ONNX Runtime's signature check, profiles of TensorRT, golden inputs,
    parity) reads the manifest. Tolerances stand in `parity`, `sam2_parity` and `precision.PRECISIONS`, and
    each measured value with its own in the manifest.

    `optimum` is not used: optimum-onnx needs transformers < 4.58 and knows no Qwen2.5-Omni, and what
    remains of optimum's core (a base class of export configurations) would be a second list of the same
    names, in a form that the runtime, which has no torch, could not read.
"""
