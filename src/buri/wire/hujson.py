"""HuJSON: JSON with comments and trailing commas, read with places.

Source: the JWCC grammar of tailscale/hujson. Comments and trailing commas are overwritten with blanks, so that every
offset stays true, and what is left is plain JSON for msgspec. The pass is linear in the text, whatever the text:
each alternative of the pattern consumes what it looked at. Lines and columns count from 1, in characters.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Any

import msgspec

from buri.core.errors import SyntaxPlaceError

Path = tuple[str | int, ...]
"""Where a value stands: keys and indices from the root, as in ("acls", 3, "dst", 0)."""

# Possessive only over single characters: around groups it is broken before Python 3.11.5, and not needed, since no two
# ways of matching the same characters exist.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*(?:"|\\?\Z)'
_COMMENT = r"//[^\n]*+|/\*[^*]*+(?:\*(?!/)[^*]*+)*(?:\*/|\Z)"
_BEFORE_CLOSE = rf"(?:[ \t\r\n]++|{_COMMENT})*[\]}}]"
# Almost all of a text is a few matches: strings, and whatever is neither a comment nor a trailing comma. The count
# bounds what the matcher keeps in mind.
_PIECES = re.compile(rf'(?:[^"/,]++|{_STRING}|,(?!{_BEFORE_CLOSE})){{1,4096}}|{_COMMENT}|,|/', re.DOTALL)
_TOKENS = re.compile(rf"{_STRING}|[{{}}\[\],:]|[^\s{{}}\[\],:\"]++", re.DOTALL)
_CLOSES = re.compile(_BEFORE_CLOSE, re.DOTALL)
_NOT_NEWLINE = re.compile(r"[^\n\r]")
_BYTE = re.compile(r" \(byte (\d+)\)$")


class Document:
    """One HuJSON text and its value; `value` is plain Python data (dict, list, str, int, float, bool, None)."""

    def __init__(self, text: str) -> None:
        """Raises SyntaxPlaceError at the first place that is not HuJSON."""
        self.text = text
        self._starts: list[int] | None = None
        self._offsets: dict[Path, int] | None = None
        self._plain = self._standardize(text)
        try:
            encoded = self._plain.encode()
        except UnicodeEncodeError as error:
            raise self._error("a lone surrogate is not text", error.start) from None
        try:
            self.value: Any = msgspec.json.decode(encoded)
        except RecursionError:
            raise self._error("values nest too deeply", 0) from None
        except msgspec.DecodeError as error:
            raise self._decode_error(str(error), encoded) from None

    @classmethod
    def parse(cls, data: bytes | str) -> Document:
        """Read a document from bytes (UTF-8, a byte order mark is skipped) or text."""
        if isinstance(data, str):
            return cls(data.removeprefix("\ufeff"))
        try:
            return cls(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            before = data[: error.start].decode(errors="replace")
            line = before.count("\n") + 1
            raise SyntaxPlaceError(
                "the text is not UTF-8.", line=line, column=len(before) - before.rfind("\n")
            ) from None

    def place(self, path: Path) -> tuple[int, int]:
        """Line and column of the value at `path`; of the nearest enclosing value when the path leads nowhere."""
        if self._offsets is None:
            self._offsets = self._index()
        while path not in self._offsets and path:
            path = path[:-1]
        return self.line_column(self._offsets.get(path, 0))

    def line_column(self, offset: int) -> tuple[int, int]:
        """Line and column of a character offset."""
        if self._starts is None:
            self._starts = [0, *(found.end() for found in re.finditer("\n", self.text))]
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def _decode_error(self, message: str, encoded: bytes) -> SyntaxPlaceError:
        """Where and why the plain JSON is none: the standard library points more exactly than the fast decoder."""
        if not self._plain.strip():
            return self._error("the document is empty", len(self._plain))
        try:
            json.loads(self._plain)
        except json.JSONDecodeError as error:
            reason = error.msg.removesuffix(" starting at").removesuffix(" at")
            return self._error(reason[0].lower() + reason[1:], error.pos)
        except RecursionError:
            pass  # too deep for it; the fast decoder's place must do
        found = _BYTE.search(message)  # NaN and other numbers that only the standard library takes
        offset = len(encoded[: int(found.group(1))].decode(errors="ignore")) if found else len(self._plain)
        return self._error(_BYTE.sub("", message).removeprefix("JSON is malformed: "), offset)

    def _error(self, message: str, offset: int) -> SyntaxPlaceError:
        line, column = self.line_column(offset)
        return SyntaxPlaceError(f"{message}.", line=line, column=column)

    def _standardize(self, text: str) -> str:
        pieces = _PIECES.findall(text)
        end = 0
        for index, piece in enumerate(pieces):
            start, end = end, end + len(piece)
            if piece[0] == "/" and piece != "/":
                if piece[1] == "*" and (len(piece) < 4 or not piece.endswith("*/")):
                    raise self._error("a comment is opened with /* and never closed", start)
                many_lines = "\n" in piece or "\r" in piece
                pieces[index] = _NOT_NEWLINE.sub(" ", piece) if many_lines else " " * len(piece)
            elif piece == "," and _CLOSES.match(text, end) and self._ends_a_value(pieces, index):
                pieces[index] = " "
        return "".join(pieces)

    @staticmethod
    def _ends_a_value(pieces: list[str], index: int) -> bool:
        """Whether the trailing comma at `index` follows a value (in "[,]" it does not)."""
        while index:
            index -= 1
            if bare := pieces[index].rstrip():
                return bare[-1] not in "[{,:"
        return False

    def _index(self) -> dict[Path, int]:
        """Offsets of every value, by path; one pass over tokens of a text known to be valid."""
        offsets: dict[Path, int] = {}
        path: list[str | int] = []  # the open containers' current key or index
        key_next: list[bool] = []  # per open container: an object that waits for a key
        for found in _TOKENS.finditer(self._plain):
            token = found.group()
            if token == ":":
                continue
            if token == ",":
                last = path[-1]
                if isinstance(last, int):
                    path[-1] = last + 1
                else:
                    key_next[-1] = True
                continue
            if token in "}]":
                path.pop()
                key_next.pop()
                continue
            if key_next and key_next[-1]:
                path[-1] = msgspec.json.decode(token.encode())
                key_next[-1] = False
                continue
            offsets[tuple(path)] = found.start()
            if token == "{":
                path.append("")
                key_next.append(True)
            elif token == "[":
                path.append(0)
                key_next.append(False)
        return offsets
