"""What a verb or a daemon must not load before it needs it: the start of a command is felt, and no clock judges it here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
HEAVY = {
    "alembic", "asyncio", "cryptography", "email", "h11", "h2", "hpack", "http", "hypothesis", "joserfc", "nacl",
    "segno", "sqlalchemy", "sqlite3", "ssl", "subprocess", "tomllib", "urllib.request", "zoneinfo",
}  # fmt: skip
OWN_HEAVY = {
    f"buri.{room}" for room in ("control", "dns", "engine", "machine", "node", "policy", "relay", "roles", "web")
}


def loaded(code: str) -> set[str]:
    """The modules that a program has loaded at its end, run as an installed one is."""
    tell = "print(*(f'module {name}' for name in sys.modules), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{tell}"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.removeprefix("module ") for line in done.stdout.splitlines() if line.startswith("module ")}


def test_buri_status_loads_nothing_heavy() -> None:
    modules = loaded(
        "from buri.cli.main import main\n"
        "assert main(['--socket=/nonexistent/burid.sock', 'status']) == 1\n"
        "import buri.cli.render.status, msgspec.json"
    )
    assert "buri.cli.status" in modules
    assert not modules & (HEAVY | OWN_HEAVY)


def test_buri_help_loads_no_verb() -> None:
    modules = loaded("from buri.cli.main import main\nassert main(['--help']) == 0")
    assert "buri.cli.main" in modules
    assert not modules & {"buri.cli.status", "buri.cli.up", *HEAVY, *OWN_HEAVY}


def test_burid_has_its_socket_before_it_loads_a_node(tmp_path: Path) -> None:
    path = tmp_path / "burid.sock"
    modules = loaded(
        "from pathlib import Path\n"
        "from buri.roles.daemon import claim_socket, parse\n"
        f"claim_socket(parse(['--socket={path}']).socket)"
    )
    assert path.exists()
    assert not modules & (HEAVY | {"msgspec", "buri.engine", "buri.machine", "buri.node.agent", "buri.wire"})
