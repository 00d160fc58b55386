"""Objects in JSON-like text that a model wrote: tolerant, total, one pass.

Accepts what `json` accepts and what models write besides: several objects in a row, text around them,
trailing or missing commas, single quotes, unquoted words, Python's None and True, missing closing brackets.
Each character is looked at a bounded number of times: a megabyte of brackets costs about a second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

MAX_OBJECTS = 256
MAX_DEPTH = 16
_MAX_NUMBER_CHARS = 64

_OPEN = re.compile(r"[\[{]")
_WORD = re.compile(r"[^\[\]{},:\"'\s][^\[\]{},:\"\n]*")  # where a key may stand
_VALUE_WORD = re.compile(r"[^\[\]{},\"'\s][^\[\]{},\"\n]*")  # after a colon: 00:03 is one word
_STRING_STOP = {'"': re.compile(r'["\\]'), "'": re.compile(r"['\\]")}
_AFTER_STRING = re.compile(r"\s*(?:[,:}\]]|\Z)")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NAMES = {
    "null": None,
    "none": None,
    "true": True,
    "false": False,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "infinity": float("inf"),
    "-infinity": float("-inf"),
}


@dataclass(slots=True)
class Found:
    """What a text holds.

    Attributes:
        objects: in the order in which they end, inner ones first; keys are text, values str, float,
            bool, None, or lists and dicts of these. At most `MAX_OBJECTS`.
        empty_list: a list without any content stands outside of everything else.
    """

    objects: list[dict[str, Any]] = field(default_factory=list)
    empty_list: bool = False


def find_objects(text: str) -> Found:
    """Return the objects of a text; never raises."""
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.found = Found()
        self.stack: list[dict[str, Any] | list[Any]] = []
        self.keys: list[str | None] = []  # per level: the key whose value comes next
        self.after_colon = False
        self.too_deep = 0  # brackets open beyond MAX_DEPTH, whose content is skipped

    def run(self) -> Found:
        text = self.text
        while len(self.found.objects) < MAX_OBJECTS:
            if not self.stack:
                opening = _OPEN.search(text, self.position)
                if opening is None:
                    return self.found
                self.position = opening.start()
            elif self.position >= len(text):
                break
            char = text[self.position]
            if char in "[{":
                self._open(char)
            elif char in "]}":
                self._close(list if char == "]" else dict)
            elif char in ",:":
                self._separate(char)
            elif char.isspace():
                self.position += 1
            else:
                self._scalar(char)
        while self.stack:  # the text ends before its brackets do
            self._pop()
        return self.found

    def _open(self, char: str) -> None:
        self.position += 1
        if self.too_deep or len(self.stack) == MAX_DEPTH:
            self.too_deep += 1
            return
        container: dict[str, Any] | list[Any] = [] if char == "[" else {}
        self._put(container)
        self.stack.append(container)
        self.keys.append(None)
        self.after_colon = False

    def _close(self, kind: type) -> None:
        self.position += 1
        self.after_colon = False
        if self.too_deep:
            self.too_deep -= 1
        elif any(isinstance(container, kind) for container in self.stack):
            while not isinstance(self._pop(), kind):
                pass

    def _pop(self) -> dict[str, Any] | list[Any]:
        container = self.stack.pop()
        self.keys.pop()
        if isinstance(container, dict):
            if len(self.found.objects) < MAX_OBJECTS:
                self.found.objects.append(container)
        elif not container and not self.stack:
            self.found.empty_list = True
        return container

    def _separate(self, char: str) -> None:
        self.position += 1
        self.after_colon = char == ":"
        if char == "," and not self.too_deep:
            self.keys[-1] = None

    def _scalar(self, char: str) -> None:
        if char in _STRING_STOP:
            end = self._string_end(char)
            if end is None:  # what follows cannot be told apart from the string
                self.position = len(self.text)
                return
            value: Any = _unescape(self.text[self.position + 1 : end])
            self.position = end + 1
        else:
            pattern = _VALUE_WORD if self.after_colon else _WORD
            match = pattern.match(self.text, self.position)
            if match is None:
                self.position += 1
                return
            value = _word(match[0].strip())
            self.position = match.end()
        if not self.too_deep:
            self._put(value)
        self.after_colon = False

    def _string_end(self, quote: str) -> int | None:
        """Return where the closing quote stands; None if the string never ends.

        A quote ends the string only if what follows may follow a string: others are part of the text.
        """
        position = self.position + 1
        while match := _STRING_STOP[quote].search(self.text, position):
            if match[0] == "\\":
                position = match.end() + 1
            elif _AFTER_STRING.match(self.text, match.end()):
                return match.start()
            else:
                position = match.end()
        return None

    def _put(self, value: Any) -> None:
        """Give a value to the innermost container: as an item, a key, or a key's value."""
        if not self.stack:
            return
        top = self.stack[-1]
        if isinstance(top, list):
            top.append(value)
        elif self.keys[-1] is None:
            if not isinstance(value, (dict, list)):
                self.keys[-1] = str(value)
        else:
            top[self.keys[-1]] = value
            self.keys[-1] = None


def _word(word: str) -> Any:
    """Return the value of an unquoted word."""
    if _NUMBER.fullmatch(word):
        return float(word) if len(word) <= _MAX_NUMBER_CHARS else float("inf")
    return _NAMES.get(word.lower(), word)


def _unescape(body: str) -> str:
    if "\\" not in body:
        return body
    text = _ESCAPE.sub(
        lambda m: chr(int(m[1][1:], 16)) if len(m[1]) == 5 else _ESCAPES.get(m[1], m[1]),
        body,
    )
    # Escaped surrogate pairs become one character; halves become U+FFFD.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
