"""Reads plain JSON data into typed values, gathering every fault with its path.

Keys match whatever their case, as in the service (Go's JSON); a key nobody knows is a fault at its place.
"""

from __future__ import annotations

from typing import Any

from buri.policy.problems import Faults
from buri.wire.hujson import Path


def _noun(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
    return "an object"


class Reader:
    """One object of the document. Reading an absent or null key gives the empty value of its type."""

    def __init__(self, value: Any, path: Path, faults: Faults, known: frozenset[str]) -> None:
        """`known` are the keys allowed here, in lower case."""
        self.path = path
        self.faults = faults
        self._fields: dict[str, tuple[str, Any]] = {}
        if not isinstance(value, dict):
            faults.add(path, f"expected an object, found {_noun(value)}")
            return
        for key, item in value.items():
            if key.lower() not in known:
                faults.add((*path, key), f'unknown field "{key}"')
            else:
                self._fields[key.lower()] = (key, item)

    def has(self, name: str) -> bool:
        """Whether the key is there and not null."""
        return name in self._fields and self._fields[name][1] is not None

    def at(self, name: str) -> Path:
        """The path of a key, as the file spells it; of this object when the key is absent."""
        return (*self.path, self._fields[name][0]) if name in self._fields else self.path

    def any(self, name: str) -> Any:
        return self._fields[name][1] if name in self._fields else None

    def text(self, name: str) -> str:
        value = self.any(name)
        return value if isinstance(value, str) else self._wrong(name, value, "a string", "")

    def flag(self, name: str) -> bool:
        value = self.any(name)
        return value if isinstance(value, bool) else self._wrong(name, value, "true or false", False)

    def texts(self, name: str) -> list[tuple[Path, str]]:
        """A list of strings with the path of each."""
        found: list[tuple[Path, str]] = []
        for path, item in self.items(name):
            if isinstance(item, str):
                found.append((path, item))
            else:
                self.faults.add(path, f"expected a string, found {_noun(item)}")
        return found

    def items(self, name: str) -> list[tuple[Path, Any]]:
        """A list's items with their paths."""
        value = self.any(name)
        if not isinstance(value, list):
            value = self._wrong(name, value, "a list", [])
        at = self.at(name)
        return [((*at, index), item) for index, item in enumerate(value)]

    def entries(self, name: str) -> list[tuple[Path, str, Any]]:
        """An object's entries with their paths."""
        value = self.any(name)
        if not isinstance(value, dict):
            value = self._wrong(name, value, "an object", {})
        at = self.at(name)
        return [((*at, key), key, item) for key, item in value.items()]

    def strings(self, path: Path, value: Any) -> list[tuple[Path, str]]:
        """A list of strings that is no field of this object; null is empty."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.faults.add(path, f"expected a list, found {_noun(value)}")
            return []
        found: list[tuple[Path, str]] = []
        for index, item in enumerate(value):
            if isinstance(item, str):
                found.append(((*path, index), item))
            else:
                self.faults.add((*path, index), f"expected a string, found {_noun(item)}")
        return found

    def _wrong(self, name: str, value: Any, wanted: str, empty: Any) -> Any:
        if value is not None:
            self.faults.add(self.at(name), f"expected {wanted}, found {_noun(value)}")
        return empty
