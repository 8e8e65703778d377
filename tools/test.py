"""Run every ring of tests that this machine can run, one after the other, and say what was left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from build_engine import cargo

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [str(ROOT / ".venv/bin/pytest")]


def main() -> int:
    sys.path.insert(0, str(ROOT / "src"))
    from buri.testing.lab import peers_directory, why_not

    rings: list[tuple[str, list[str]]] = []
    left_out: list[str] = []
    if tool := cargo():
        rings.append(("Rust: the engine's own tests", [tool, "test", "--quiet", "--locked", "-p", "buri-engine"]))
    else:
        left_out.append("Rust: there is no cargo (Debian: cargo-web).")
    rings.append(("unit, sim, meta", [*PYTEST, "-n", "2", "tests/unit", "tests/sim", "tests/meta"]))
    if reason := why_not():
        left_out.append(f"netns and interop: {reason}")
    else:
        rings.append(("netns: real TUN devices, NATs and firewalls", [*PYTEST, "-n", "2", "tests/netns"]))
        if (peers_directory() / "tailscaled").exists():
            rings.append(("interop: real peers", [*PYTEST, "-n", "2", "tests/interop"]))
        else:
            left_out.append("interop: the real peers could not be built (build/logs/peers.log).")
    if shutil.which("headscale") is None:
        left_out.append("interop with headscale: there is none on PATH.")
    failed = []
    for name, command in rings:
        print(f"\n=== {name}", flush=True)
        began = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": _path()}, check=False).returncode
        print(
            f"=== {name}: {'passed' if code == 0 else f'FAILED ({code})'} in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        if code != 0:
            failed.append(name)
    print()
    for line in left_out:
        print(f"left out — {line}")
    print("Failed: " + "; ".join(failed) if failed else f"All {len(rings)} rings passed.")
    return 1 if failed else 0


def _path() -> str:
    return f"{ROOT / '.venv/bin'}:{Path.home() / '.cargo/bin'}:{os.environ.get('PATH', '')}"


if __name__ == "__main__":
    sys.exit(main())
