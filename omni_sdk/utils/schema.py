"""Strict JSON or YAML <-> frozen dataclasses: unknown keys, missing keys and wrong types are errors.

Untrusted values become typed values here, in one place; nothing is coerced.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from omni_sdk.errors import OmniError

T = TypeVar("T")
_EXPONENT = re.compile(r"[+-]?\d+e[+-]?\d+", re.IGNORECASE)


class SchemaError(ValueError):
    """A value does not have the shape that its dataclass declares; the message names the path."""


@functools.cache
def _hints(cls: typing.Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def from_dict(cls: type[T], value: object, where: str = "") -> T:
    """Build a dataclass from parsed JSON or YAML.

    Args:
        cls: a dataclass whose fields are bool, int, float, str, None, dict[str, X], tuple[X, ...],
            fixed tuples, string literals, unions of these with None, or dataclasses of such
            fields.
        value: what `json.loads` or `yaml.safe_load` returned; tuples may stand for lists.
        where: path prefix for messages.

    Raises:
        SchemaError: unknown or missing key, or a value of another type.
        OmniError: as the dataclass itself raises it.
    """
    if not isinstance(value, dict):
        raise SchemaError(f"{where or 'value'}: expected an object, found {type(value).__name__}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    check_keys(cls, value, where)
    hints = _hints(typing.cast(typing.Hashable, cls))
    known = {}
    for name, f in fields.items():
        path = f"{where}.{name}" if where else name
        if name in value:
            known[name] = _convert(hints[name], value[name], path)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise SchemaError(f"{path}: missing")
    try:
        return cls(**known)
    except (ValueError, TypeError) as e:
        if isinstance(e, OmniError):
            raise
        raise SchemaError(f"{where or 'value'}: {e}") from e


def check_keys(cls: type, value: Iterable[object], where: str = "") -> None:
    """Refuse keys that are no fields of a dataclass.

    Raises:
        SchemaError: names the first one with its path, and the nearest field or all of them.
    """
    names = [f.name for f in dataclasses.fields(cls)]
    for key in value:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            path = f"{where}.{key}" if where else key
            raise SchemaError(f"{path}: unknown key {key!r}; {hint}")


def to_dict(value: Any) -> Any:
    """Turn a dataclass (nested, with tuples) into JSON-ready values; the inverse of `from_dict`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: to_dict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(v) for v in value]
    return value


def _convert(hint: Any, value: object, path: str) -> Any:
    origin = typing.get_origin(hint)
    args = typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Literal:
        if value not in args or not isinstance(value, str):
            raise SchemaError(f"{path}: expected one of {args}, found {value!r}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        errors = []
        for option in (a for a in args if a is not type(None)):
            try:
                return _convert(option, value, path)
            except SchemaError as e:
                errors.append(e)
        raise errors[0]
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, path)
    if origin is dict:
        if not isinstance(value, dict):
            raise SchemaError(f"{path}: expected an object, found {type(value).__name__}")
        return {k: _convert(args[1], v, f"{path}.{k}") for k, v in value.items()}
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise SchemaError(f"{path}: expected a list, found {type(value).__name__}")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], v, f"{path}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise SchemaError(f"{path}: expected {len(args)} entries, found {len(value)}")
        return tuple(
            _convert(a, v, f"{path}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True))
        )
    return _scalar(hint, value, path)


def _scalar(hint: Any, value: object, path: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError as e:
            raise SchemaError(f"{path}: expected a finite number, found one too large") from e
    if type(value) is not hint:
        found = type(value).__name__
        if hint is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
            found += " (YAML reads 1e-6 as text: write 1.0e-6)"
        raise SchemaError(f"{path}: expected {hint.__name__}, found {found}")
    if hint is float and not math.isfinite(typing.cast(float, value)):
        raise SchemaError(f"{path}: expected a finite number, found {value}")
    return value
