"""The only door to Rust.

`port.py` says what Python needs, `native.py` and `frontdoor.py` wrap the binary, `fake.py` is its twin.

`load()` gives the binary; everything that needs it calls that, so the rest of Buri imports without one.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from types import ModuleType

from buri.core.errors import SystemFault

ALLOW_STALE = "BURI_ENGINE_ALLOW_STALE"


def source_hash(root: Path) -> str | None:
    """The hash that build.rs stamps into the binary, computed from a checkout; None where there is no checkout."""
    rust = root / "rust"
    if not (rust / "engine-py" / "build.rs").is_file():
        return None
    paths = [root / "Cargo.toml", root / "Cargo.lock"]
    for folder, folders, names in os.walk(rust):
        folders[:] = [name for name in folders if name != "target"]
        paths += [Path(folder, name) for name in names if name.endswith((".rs", ".toml"))]
    digest = hashlib.sha256()
    # Sorted by the bytes of the relative path, as build.rs does.
    for name, path in sorted((path.relative_to(root).as_posix().encode(), path) for path in paths):
        data = path.read_bytes()
        digest.update(name + b"\0" + len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


@functools.cache
def load() -> ModuleType:
    """The engine's binary, looked at once in a process.

    Raises SystemFault when there is none, or when it was built from other sources than this checkout's (override:
    `BURI_ENGINE_ALLOW_STALE=1`).
    """
    try:
        from buri.engine import _engine
    except ImportError as error:
        raise SystemFault(
            f"The packet engine cannot be loaded ({error}).",
            remedy="In a checkout, build it with `make engine`; otherwise install buri's wheel for this platform.",
        ) from error
    if os.environ.get(ALLOW_STALE) != "1":
        wanted = source_hash(Path(__file__).resolve().parents[3])
        if wanted is not None and wanted != _engine.SOURCE_HASH:
            raise SystemFault(
                "The packet engine was built from other sources than this checkout's.",
                remedy=f"Build it with `make engine` (or set {ALLOW_STALE}=1 to use it all the same).",
            )
    return _engine
