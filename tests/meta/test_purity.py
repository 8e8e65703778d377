"""core, wire, policy and machine stay pure, and each of their modules can be imported alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
PURE_ROOMS = ("core", "wire", "policy", "machine")
BANNED = {"asyncio", "socket", "ssl", "time", "random", "os", "secrets", "threading", "subprocess", "logging"}


def pure_modules() -> list[Path]:
    return sorted(path for room in PURE_ROOMS for path in (SOURCE / "buri" / room).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", pure_modules(), ids=name_of)
def test_a_pure_module_names_no_clock_dice_or_socket(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    assert not found & BANNED


@pytest.mark.slow
def test_every_pure_module_can_be_imported_alone() -> None:
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    before = set(sys.modules)\n"
        "    importlib.import_module(name)\n"
        "    for new in set(sys.modules) - before:\n"
        "        if new == 'buri' or new.startswith('buri.'):\n"
        "            del sys.modules[new]\n"
    )
    names = [name_of(path) for path in pure_modules()]
    done = subprocess.run(
        [sys.executable, "-c", script, *names], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_source_file_is_past_six_hundred_lines() -> None:
    root = SOURCE.parent
    long = {
        str(path.relative_to(root)): count
        for folder in ("src", "rust", "tests", "tools", "bench")
        for path in (root / folder).rglob("*")
        if path.suffix in {".py", ".rs"} and (count := len(path.read_text().splitlines())) > 600
    }
    assert not long, f"look for the second noun: {long}"
