"""A verb starts in no time: it loads click, msgspec and the wire structs, and none of the heavy libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "src"
HEAVY = ("asyncio", "ssl", "http.client", "h11", "h2", "cryptography", "nacl", "sqlalchemy", "rich", "segno", "logging")
OTHER_ROOMS = ("buri.node", "buri.control", "buri.machine", "buri.engine", "buri.roles", "buri.web")


def test_status_loads_no_heavy_library_and_no_other_room(tmp_path: Path) -> None:
    script = (
        "import sys; from buri.cli.main import main\n"
        f"code = main(['--socket={tmp_path}/none', 'status'])\n"
        "sys.stdout.write(' '.join(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = set(done.stdout.split())
    assert done.returncode == 1, done.stderr
    assert "buri.cli.status" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert not [name for name in loaded if name.startswith(OTHER_ROOMS)]
