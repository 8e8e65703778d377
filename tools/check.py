"""Format, lint, types, import arrows, purity, stubs: what a change must satisfy before it is tested."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from build_engine import cargo

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv/bin"
PYTHON_TREES = ["src", "tests", "tools", "bench"]


def main() -> int:
    trees = [tree for tree in PYTHON_TREES if any((ROOT / tree).rglob("*.py"))]
    checks: list[tuple[str, list[str]]] = [
        ("format", [str(BIN / "ruff"), "format", "--check", *trees]),
        ("lint", [str(BIN / "ruff"), "check", *trees]),
        ("types", [str(BIN / "mypy")]),
        ("arrows", [str(BIN / "lint-imports")]),
        ("purity", [str(BIN / "pytest"), "tests/meta"]),
    ]
    if (ROOT / "src/buri/engine/_engine.abi3.so").exists():
        checks.append(("stubs", [str(BIN / "stubtest"), "buri.engine._engine"]))
    else:
        print("left out — stubs: the engine's binary is not built (make engine).")
    if tool := cargo():
        checks.append(("Rust format", [tool, "fmt", "--check"]))
        checks.append(("Rust lint", [tool, "clippy", "--quiet", "--locked", "--all-targets", "--", "-D", "warnings"]))
    failed = []
    for name, command in checks:
        began = time.monotonic()
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "MYPYPATH": "src", "PYTHONPATH": "src"},
            check=False,
        )
        print(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'} ({time.monotonic() - began:.1f} s)", flush=True)
        if done.returncode != 0:
            print((done.stdout + done.stderr).rstrip())
            failed.append(name)
    print("Failed: " + ", ".join(failed) if failed else "All checks passed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
