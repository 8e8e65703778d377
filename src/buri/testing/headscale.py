"""`headscale`, the best-known other control server, for the lab and the bench: its configuration, and the words to it.

It reads its DERP map as YAML with every name in lower case, and learns nothing from the internet: no map by URL, no
update check, no certificate.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from buri.testing.lab import Host, Process

PROGRAM = "headscale"


def why_no_headscale() -> str | None:
    """One sentence why it cannot be run here, None when it can."""
    return None if shutil.which(PROGRAM) is not None else "headscale is not on PATH."


def _lower_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.lower(): _lower_names(part) for name, part in value.items()}
    return [_lower_names(part) for part in value] if isinstance(value, list) else value


def write_configuration(
    directory: Path, *, listen: str, url: str, derp_map: dict[str, Any], metrics: str = "127.0.0.1:9090"
) -> Path:
    """Write what a headscale in `directory` needs to run with SQLite and these relays alone; the file (JSON is YAML)."""
    directory.mkdir(parents=True, exist_ok=True)
    relays = directory / "derp.yaml"
    regions = (f"{number}: {json.dumps(_lower_names(region))}" for number, region in derp_map["Regions"].items())
    relays.write_text(f"regions: {{{', '.join(regions)}}}\n")  # not JSON: there a number cannot be a name
    path = directory / "config.yaml"
    path.write_text(
        json.dumps(
            {
                "server_url": url,
                "listen_addr": listen,
                "metrics_listen_addr": metrics,
                "noise": {"private_key_path": str(directory / "noise.key")},
                "prefixes": {"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48", "allocation": "sequential"},
                "derp": {
                    "server": {"enabled": False},
                    "urls": [],
                    "paths": [str(relays)],
                    "auto_update_enabled": False,
                },
                "disable_check_updates": True,
                "database": {
                    "type": "sqlite",
                    "sqlite": {"path": str(directory / "db.sqlite"), "write_ahead_log": True},
                },
                "log": {"level": "info", "format": "text"},
                "policy": {"mode": "database"},
                "dns": {
                    "magic_dns": True,
                    "base_domain": "head.test",
                    "override_local_dns": False,
                    "nameservers": {"global": []},
                },
                "unix_socket": str(directory / "headscale.sock"),
                "unix_socket_permission": "0700",
                "logtail": {"enabled": False},
            }
        )
    )
    return path


class Headscale:
    """A `headscale` on a host of the lab, at a private address, and its command line."""

    def __init__(self, host: Host, address: str, derp_map: dict[str, Any], *, port: int = 8080) -> None:
        self.host = host
        self.url = f"http://{address}:{port}"
        where = host.directory / "headscale"
        self.configuration = write_configuration(where, listen=f"0.0.0.0:{port}", url=self.url, derp_map=derp_map)
        self._user = ""
        self.process = self.start()

    def start(self) -> Process:
        """Start it and wait until it listens."""
        self.process = self.host.start("headscale", PROGRAM, f"--config={self.configuration}", "serve")
        self.process.expect(r"listening and serving HTTP on")
        return self.process

    def say(self, *words: str) -> Any:
        """Run `headscale … --output=json`; returns what it printed."""
        done = self.host.run(PROGRAM, f"--config={self.configuration}", "--output=json", *words)
        return json.loads(done.stdout)

    def auth_key(self, *flags: str) -> str:
        """Make a pre-auth key (reusable unless flags say otherwise) of the lab's user."""
        if not self._user:
            self._user = str(self.say("users", "create", "lab")["id"])
        made = self.say("preauthkeys", "create", f"--user={self._user}", *(flags or ("--reusable",)))
        key: str = made["key"]
        return key

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Every node it knows, by the name given to it."""
        return {node["givenName"]: node for node in self.say("nodes", "list") or ()}
