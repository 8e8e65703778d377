"""Run every ring of tests that this machine can run, one after the other, and say what was left out."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from build_engine import cargo

ROOT = Path(__file__).resolve().parents[1]
Ring = tuple[str, list[str]]  # its name and its command
PYTEST = [str(ROOT / ".venv/bin/pytest")]


def plan() -> tuple[list[Ring], list[str]]:
    """The rings that can run here, and a sentence for each that cannot."""
    sys.path.insert(0, str(ROOT / "src"))
    from buri.testing import ordinaryuser
    from buri.testing.lab import peers_directory

    rings: list[Ring] = []
    left_out: list[str] = []
    if not os.access(ROOT, os.W_OK):
        left_out.append("Rust: this checkout belongs to somebody else, so nothing can be built in it.")
    elif tool := cargo():
        rings.append(("Rust: the engine's own tests", [tool, "test", "--quiet", "--locked", "-p", "buri-engine"]))
    else:
        left_out.append("Rust: there is no cargo (Debian: cargo-web).")
    everywhere = ["tests/unit", "tests/sim", "tests/meta", "tests/fuzz"]
    rings.append(("unit, sim, meta, fuzz targets over their seeds", [*PYTEST, "-n", "2", *everywhere]))
    if reason := ordinaryuser.why_not():
        left_out.append(f"netns and interop: {reason}")
    else:
        enter = ordinaryuser.words()
        if enter:
            rings.append(("unit: what needs root's rights", [*enter, *PYTEST, "-m", "root", "tests/unit"]))
        rings.append(("netns: real TUN devices, NATs and firewalls", [*enter, *PYTEST, "-n", "2", "tests/netns"]))
        if (peers_directory() / "tailscaled").exists():
            rings.append(("interop: real peers", [*enter, *PYTEST, "-n", "2", "tests/interop"]))
        else:
            left_out.append("interop: the real peers could not be built (build/logs/peers.log).")
    if shutil.which("headscale") is None:
        left_out.append("interop with headscale: there is none on PATH.")
    return rings, left_out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", action="store_true", help="only say what would run, and what would be left out")
    options = parser.parse_args()
    rings, left_out = plan()
    if options.plan:
        for name, command in rings:
            print(f"would run — {name}: {shlex.join(command)}")
        for line in left_out:
            print(f"left out — {line}")
        return 0
    failed = []
    for name, command in rings:
        print(f"\n=== {name}", flush=True)
        began = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, env=_environment(), check=False).returncode
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


def _environment() -> dict[str, str]:
    path = f"{ROOT / '.venv/bin'}:{Path.home() / '.cargo/bin'}:{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path}
    if not os.access(ROOT, os.W_OK):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "buri"
        environment |= {
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(cache / "hypothesis"),
        }
    return environment


if __name__ == "__main__":
    sys.exit(main())
