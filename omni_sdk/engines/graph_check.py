"""What an ONNX file may ask of an engine, checked on its bytes before an engine parses them.

A graph can name files to read (external data), libraries' operators (custom domains), compiled blobs
(EPContext) and sizes to allocate. This walks the protobuf wire format (protobuf.dev, "Encoding"; field
numbers: onnx.proto3) over exactly those fields, without the onnx package and without copying weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NoReturn

from omni_sdk.errors import BundleError

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operators that onnxruntime itself holds; others come from libraries, which are never loaded."""
_REFUSED = frozenset({"EPContext"})  # runs a compiled blob, from the graph or from a file beside it
_MAX_DEPTH = 32
_MAX_ELEMENTS_PER_BYTE = 4  # two-bit integers are the smallest that ONNX stores
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# onnx.proto3: field number -> what to walk into.
_MODEL = {7: "graph", 25: "function"}
_GRAPH = {1: "node", 5: "tensor", 15: "sparse"}
_FUNCTION = {7: "node", 11: "attribute"}
_NODE = {5: "attribute"}
_ATTRIBUTE = {5: "tensor", 10: "tensor", 6: "graph", 11: "graph", 22: "sparse", 23: "sparse"}
_SPARSE = {1: "tensor", 2: "tensor"}
_CHILDREN = {
    "model": _MODEL,
    "graph": _GRAPH,
    "function": _FUNCTION,
    "node": _NODE,
    "attribute": _ATTRIBUTE,
    "sparse": _SPARSE,
    "tensor": {},
}
_TRAINING = 20  # of the model: never used here, and a place to hide graphs
_OP_TYPE, _NODE_DOMAIN = 4, 7
_FUNCTION_DOMAIN = 10
_DIMS, _RAW_DATA, _EXTERNAL = 1, 9, 13
_KEY, _VALUE = 1, 2


def check_graph(content: bytes, name: str, file: str, data: dict[str, int]) -> None:
    """Check an ONNX file.

    Args:
        content: its bytes.
        name: the graph's name, for messages.
        file: its path inside the bundle.
        data: size in bytes of each external data file that the manifest lists for it, by path inside the
            bundle.

    Raises:
        BundleError: not a protobuf message, external data that is not listed, an operator of a foreign
            domain, an EPContext node, or a tensor that claims more elements than its bytes can hold.
    """
    _Checker(name, file.rpartition("/")[0], data).walk(memoryview(content), "model", 0)


class _Checker:
    def __init__(self, name: str, folder: str, data: dict[str, int]) -> None:
        self._name, self._folder, self._data = name, folder, data

    def walk(self, message: memoryview, kind: str, depth: int) -> None:
        """Check a message and those within it."""
        if depth > _MAX_DEPTH:
            self._refuse(f"nested deeper than {_MAX_DEPTH} levels")
        children = _CHILDREN[kind]
        if kind == "tensor":
            self._tensor(message)
        for number, wire, value in self._fields(message):
            if number in children:
                self.walk(self._bytes(wire, value), children[number], depth + 1)
            elif kind == "model" and number == _TRAINING:
                self._refuse("holds training information; export it for inference")
            elif kind == "node" and number == _OP_TYPE:
                self._operator(self._text(wire, value))
            elif (kind, number) in (("node", _NODE_DOMAIN), ("function", _FUNCTION_DOMAIN)):
                self._domain(self._text(wire, value))

    def _operator(self, op: str) -> None:
        if op in _REFUSED:
            self._refuse(f"holds a {op} node, which runs a compiled blob")

    def _domain(self, domain: str) -> None:
        if domain not in DOMAINS:
            self._refuse(
                f"uses an operator of the domain {domain!r}; only {sorted(DOMAINS)} are run"
            )

    def _tensor(self, message: memoryview) -> None:
        elements, stored = 1, len(message)
        for number, wire, value in self._fields(message):
            if number == _DIMS:
                packed = self._varints(value) if isinstance(value, memoryview) else [value]
                elements = self._product(elements, packed)
            elif number == _RAW_DATA:
                self._bytes(wire, value)
            elif number == _EXTERNAL:
                stored = max(stored, self._external(self._bytes(wire, value)))
        if elements > stored * _MAX_ELEMENTS_PER_BYTE:
            claim = f"2**{math.log2(elements):.0f}" if elements > 1 << 40 else str(elements)
            self._refuse(f"holds a tensor that claims {claim} elements in {stored} bytes")

    def _product(self, elements: int, sizes: Iterable[int]) -> int:
        for size in sizes:
            # Capped: a long list of dimensions must not make a number of megabytes.
            elements = min(elements * size, 1 << 80)
        return elements

    def _external(self, entry: memoryview) -> int:
        """Return the size of the file that an entry names, 0 where it names none."""
        parts = [(number, self._text(wire, value)) for number, wire, value in self._fields(entry)]
        # Of a field that occurs twice parsers take the last: every reading must be a good one.
        if not any(number == _KEY and text == "location" for number, text in parts):
            return 0
        size = 0
        for number, location in parts:
            if number != _VALUE:
                continue
            # Compared as text: no normalising here that the engine might do otherwise.
            path = f"{self._folder}/{location}" if self._folder else location
            if path not in self._data:
                self._refuse(
                    f"reads its weights from {location!r}, which the manifest does not list for it "
                    f"(listed: {sorted(self._data)})"
                )
            size = max(size, self._data[path])
        return size

    def _fields(self, message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        at = 0
        while at < len(message):
            tag, at = self._varint(message, at)
            wire, number = tag & 7, tag >> 3
            if wire == _VARINT:
                value, at = self._varint(message, at)
                yield number, wire, value
                continue
            if wire == _BYTES:
                size, at = self._varint(message, at)
            elif wire in (_FIXED64, _FIXED32):
                size = 8 if wire == _FIXED64 else 4
            else:
                self._refuse("is not an ONNX file (unknown wire type)")
            if number == 0 or size > len(message) - at:
                self._refuse("is not an ONNX file (a field is longer than its message)")
            yield number, wire, message[at : at + size]
            at += size

    def _varints(self, message: memoryview) -> Iterator[int]:
        at = 0
        while at < len(message):
            value, at = self._varint(message, at)
            yield value

    def _varint(self, message: memoryview, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(message):
                break
            byte = message[at]
            value |= (byte & 0x7F) << shift
            at += 1
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, at
        return self._refuse("is not an ONNX file (a broken number)")

    def _bytes(self, wire: int, value: int | memoryview) -> memoryview:
        if wire != _BYTES or not isinstance(value, memoryview):
            self._refuse("is not an ONNX file (a number in place of a message)")
        return value

    def _text(self, wire: int, value: int | memoryview) -> str:
        return bytes(self._bytes(wire, value)).decode("utf-8", "replace")

    def _refuse(self, reason: str) -> NoReturn:
        raise BundleError(f"{self._name}: the graph {reason}")
