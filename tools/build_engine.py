"""Build the packet engine and put it where Python finds it: src/buri/engine/_engine.abi3.so.

Honours CARGO_TARGET_DIR. Needs cargo (rustup's, or Debian's `cargo-web`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BINARY = ROOT / "src" / "buri" / "engine" / "_engine.abi3.so"
LIBRARY = "lib_engine.dylib" if sys.platform == "darwin" else "lib_engine.so"


def cargo() -> str | None:
    """Where cargo is: where rustup puts it, else on PATH."""
    return shutil.which("cargo", path=os.path.expanduser("~/.cargo/bin")) or shutil.which("cargo")


def main() -> int:
    program = cargo()
    if program is None:
        print(
            "The packet engine needs cargo, and there is none. Type `apt-get install cargo-web` (Debian), or see https://rustup.rs.",
            file=sys.stderr,
        )
        return 3
    print("building the packet engine (cargo, release; about a minute when cold)", flush=True)
    command = [program, "build", "--release", "-p", "buri-engine-py", "--features", "pyo3/extension-module"]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        print("The packet engine did not build; cargo says why above.", file=sys.stderr)
        return 1
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    fresh = BINARY.with_suffix(".new")
    # Replaced by name, never rewritten: a running program has the old file mapped.
    shutil.copyfile(target / "release" / LIBRARY, fresh)
    fresh.chmod(0o755)
    fresh.replace(BINARY)
    print(f"built {BINARY.relative_to(ROOT)} ({BINARY.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
