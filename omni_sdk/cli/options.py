"""Options of the command line, made from the fields of `omni_sdk.config`'s dataclasses.

A field becomes `--its-name`, with its metadata's aliases; its help is what the docstring says of it. An
option that is not given leaves no trace, so that the dataclass decides on the default.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeVar

from omni_sdk.config import (
    GenerationConfig,
    PipelineConfig,
    SamplingConfig,
    TrackingConfig,
    option_types,
)

T = TypeVar("T")
_METAVARS = {int: "N", float: "X", str: "TEXT"}
_KINDS = {int: "an integer", float: "a number", str: "a text"}


def declare_options(
    parser: argparse.ArgumentParser,
    config: type,
    *,
    only: Collection[str] | None = None,
    exclude: Collection[str] = (),
    defaults: Mapping[str, object] | None = None,
) -> None:
    """Add an option for every field of a dataclass.

    Args:
        parser: that gets them.
        config: its fields are bools, numbers, texts, literals, unions of these, or tuples of texts; fields
            that are dataclasses themselves are left out.
        only: names of the fields that are options here; None: all.
        exclude: names of fields that are no options here.
        defaults: by field, where they are others than the dataclass's.
    """
    defaults = defaults or {}
    described = _descriptions(config)
    metadata = {f.name: f.metadata for f in dataclasses.fields(config)}
    for name, hint, default in _parameters(config):
        if name in exclude or dataclasses.is_dataclass(hint):
            continue
        if only is not None and name not in only:
            continue
        text = described.get(name, "") + _shown(defaults.get(name, default))
        extra: Mapping[str, Any] = metadata.get(name, {})
        names = [f"--{name.replace('_', '-')}", *extra.get("aliases", ())]
        form = _form(hint, extra) | {"help": text.replace("%", "%%")}
        parser.add_argument(*names, dest=name, default=argparse.SUPPRESS, **form)
    parser.set_defaults(**defaults)


def read_options(arguments: argparse.Namespace, config: Callable[..., T], **more: object) -> T:
    """Return the dataclass with what the command line gives.

    Args:
        arguments: of a parser that has the options.
        config: the dataclass.
        more: fields that are no options.

    Raises:
        OptionError: a value out of range, or values that contradict each other.
    """
    given: dict[str, object] = {}
    for name in inspect.signature(config).parameters:
        if hasattr(arguments, name) and name not in more:
            value = getattr(arguments, name)
            given[name] = tuple(value) if isinstance(value, list) else value
    return config(**given, **more)


def declare_pipeline(
    parser: argparse.ArgumentParser,
    *,
    only: Collection[str] | None = None,
    exclude: Collection[str] = (),
    defaults: Mapping[str, object] | None = None,
) -> None:
    """Add all options of `PipelineConfig` and its parts; see `declare_options`."""
    for part in (SamplingConfig, GenerationConfig, TrackingConfig):
        declare_options(parser, part, only=only, exclude=exclude)
    declare_options(parser, PipelineConfig, only=only, exclude=exclude, defaults=defaults)


def read_pipeline(arguments: argparse.Namespace, **more: object) -> PipelineConfig:
    """Return the options of a run; see `read_options`."""
    return read_options(
        arguments,
        PipelineConfig,
        sampling=read_options(arguments, SamplingConfig),
        generation=read_options(arguments, GenerationConfig),
        tracking=read_options(arguments, TrackingConfig),
        **more,
    )


def _parameters(config: type) -> list[tuple[str, Any, object]]:
    """Return the name, type and default of what a dataclass is made with."""
    hints, found = option_types(config), []
    for name, parameter in inspect.signature(config).parameters.items():
        hint = hints[name]
        hint = hint.type if isinstance(hint, dataclasses.InitVar) else hint
        found.append((name, hint, parameter.default))
    return found


def _descriptions(config: type) -> dict[str, str]:
    """Return what a docstring's "Attributes:" say, by name, in the words of a command line."""
    _, _, attributes = (inspect.getdoc(config) or "").partition("Attributes:\n")
    found = {}
    for entry in re.split(r"\n(?=    \w)", "\n" + attributes):
        name, _, text = entry.strip().partition(": ")
        text = re.sub(r"(?<=\. )None: ", "By default ", " ".join(text.split()))
        found[name] = text.replace("None: ", "by default ").rstrip(".")
    return found


def _shown(default: object) -> str:
    if default is None or default == ():
        return ""
    value = {True: "on", False: "off"}[default] if isinstance(default, bool) else default
    return f" (default {value})"


def _form(hint: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return how argparse is to read a value of a type."""
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(hint) is tuple:
        return {"action": "append", "metavar": extra.get("metavar", "TEXT")}
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = [m for m in (typing.get_args(hint) if is_union else (hint,)) if m is not type(None)]
    if len(members) == 1 and typing.get_origin(members[0]) is Literal:
        return {"choices": typing.get_args(members[0])}
    if "choices" in extra:
        return {"choices": extra["choices"]}
    kind = next(m for m in members if m in _METAVARS)
    return {"type": _reader(members), "metavar": extra.get("metavar", _METAVARS[kind])}


def _reader(members: list[Any]) -> Callable[[str], object]:
    """Return a function from a text to the first of some types that it is of."""

    def read(text: str) -> object:
        for member in members:
            if typing.get_origin(member) is Literal:
                if text in typing.get_args(member):
                    return text
                continue
            try:
                value: object = member(text)
            except ValueError:
                continue
            return value
        names = [_KINDS.get(m) or " or ".join(map(repr, typing.get_args(m))) for m in members]
        raise argparse.ArgumentTypeError(f"expected {' or '.join(names)}, got {text!r}")

    return read
