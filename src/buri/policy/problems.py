"""What is wrong with a policy, every fault with its place.

The words of a fault are those of Tailscale's service where it has words for it: people search for them.
"""

from __future__ import annotations

from typing import NamedTuple

from buri.core.errors import ConfigError
from buri.wire.hujson import Document, Path

MAX_SHOWN = 50  # past this many, more faults help nobody


class Problem(NamedTuple):
    """One fault: `message` in the service's words, `path` into the document, `line` and `column` from 1."""

    message: str
    path: Path
    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


class PolicyError(ConfigError):
    """A policy that is refused; `problems` holds every fault found, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        shown = [str(problem) for problem in problems[:MAX_SHOWN]]
        if len(problems) > MAX_SHOWN:
            shown.append(f"… and {len(problems) - MAX_SHOWN} more")
        super().__init__("\n".join(shown))


class Faults:
    """Gathers faults while a document is read."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: list[tuple[Path, str]] = []

    def add(self, path: Path, message: str) -> None:
        self._found.append((path, message))

    def __bool__(self) -> bool:
        return bool(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def error(self) -> PolicyError:
        """All faults as one error, in the order of the file."""
        problems = [Problem(message, path, *self._document.place(path)) for path, message in self._found]
        problems.sort(key=lambda problem: (problem.line, problem.column))
        return PolicyError(problems)

    def check(self) -> None:
        """Raise PolicyError when there is any fault."""
        if self._found:
            raise self.error()
