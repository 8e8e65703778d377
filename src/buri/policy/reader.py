"""Reads plain JSON data into typed values, gathering every fault with its path.

Keys match whatever their case, as in the service (Go's JSON); a key nobody knows is a fault at its place. Paths are
made for faults alone: a policy of thousands of rules has none.
"""

from __future__ import annotations

from collections.abc import ItemsView
from typing import Any

from buri.policy.problems import Faults
from buri.wire.hujson import Path

_STRINGS = {str}


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

    __slots__ = ("_fields", "_value", "faults", "path")

    def __init__(self, value: Any, path: Path, faults: Faults, known: frozenset[str]) -> None:
        """`known` are the keys allowed here, in lower case."""
        self.path = path
        self.faults = faults
        self._value = value
        if not isinstance(value, dict):
            faults.add(path, f"expected an object, found {_noun(value)}")
            self._fields: dict[str, Any] = {}
        elif value.keys() <= known:
            self._fields = value
        else:
            self._fields = {key.lower(): item for key, item in value.items()}
            for key in value:
                if key.lower() not in known:
                    faults.add((*path, key), f'unknown field "{key}"')

    def has(self, name: str) -> bool:
        """Whether the key is there and not null."""
        return self._fields.get(name) is not None

    def at(self, name: str, *inner: str | int) -> Path:
        """The path of a key's value, as the file spells it, or of a part of it; of this object when it is absent."""
        if name not in self._fields:
            return self.path
        spelled = [key for key in self._value if key.lower() == name]
        return (*self.path, spelled[-1], *inner)

    def any(self, name: str) -> Any:
        return self._fields.get(name)

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        return value if isinstance(value, str) else self._wrong(name, value, "a string", "")

    def flag(self, name: str) -> bool:
        value = self._fields.get(name)
        return value if isinstance(value, bool) else self._wrong(name, value, "true or false", False)

    def words(self, name: str) -> list[str]:
        """A list of strings; a list that holds anything else is read as empty."""
        value = self._fields.get(name)
        if value.__class__ is list and set(map(type, value)) == _STRINGS:
            return value
        return self.strings(self.at(name), value) if value is not None else []

    def items(self, name: str) -> list[Any]:
        """A list's items, whatever they are."""
        value = self._fields.get(name)
        return value if isinstance(value, list) else self._wrong(name, value, "a list", [])

    def entries(self, name: str) -> ItemsView[str, Any]:
        """An object's entries, whatever they are."""
        value = self._fields.get(name)
        entries: dict[str, Any] = value if isinstance(value, dict) else self._wrong(name, value, "an object", {})
        return entries.items()

    def strings(self, path: Path, value: Any) -> list[str]:
        """A list of strings at any path; null is empty, and so is a list that holds anything else."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.faults.add(path, f"expected a list, found {_noun(value)}")
            return []
        wrong = [(index, item) for index, item in enumerate(value) if not isinstance(item, str)]
        for index, item in wrong:
            self.faults.add((*path, index), f"expected a string, found {_noun(item)}")
        return [] if wrong else value

    def _wrong(self, name: str, value: Any, wanted: str, empty: Any) -> Any:
        if value is not None:
            self.faults.add(self.at(name), f"expected {wanted}, found {_noun(value)}")
        return empty
