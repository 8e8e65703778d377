"""The real `tailscale up` and `buri up` through the same sign-in page, from a server's first start on."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from buri.testing.lab import PRIVATE_SERVER, Host, Lab, peer
from buri.testing.ourpeers import ENVIRONMENT, BuriServer
from buri.testing.realpeers import Tailscaled, start_derper

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

# What a person does in a browser: become the owner, then look at a machine's page and let it join.
BROWSE = """
import asyncio, sys, httpx2
from buri.testing.browser import Browser

async def main(owner_link, *machine_pages):
    async with httpx2.AsyncClient(timeout=30) as client:
        browser = Browser(client)
        fields = {"name": "alice", "password": "many words in a row", "again": "many words in a row"}
        page = await browser.send(await browser.open(owner_link), "/welcome", fields)
        assert page.path == "/", page.text
        for address in machine_pages:
            page = await browser.open(address)
            print(page.text)
            page = await browser.send(page, "/register", {"decision": "join"})
            print(page.text)

asyncio.run(main(*sys.argv[1:]))
"""


def browse(host: Host, *addresses: str) -> str:
    return host.run(sys.executable, "-c", BROWSE, *addresses, env=ENVIRONMENT).stdout


def test_tailscale_up_through_the_page_of_a_fresh_server(lab: Lab) -> None:
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    _, derp_map = start_derper(host)
    path = host.directory / "regions.json"
    path.write_text(json.dumps(derp_map))
    url = f"http://{PRIVATE_SERVER}:8080"
    server = BuriServer(host, "--listen=0.0.0.0:8080", f"--url={url}", "--no-relay", f"--derp-map={path}", url=url)
    kept = Path(server.state / "owner-link")
    assert kept.stat().st_mode & 0o777 == 0o600
    owner_link = kept.read_text().strip()
    home = lab.home("tokyo", server=host)
    laptop = Tailscaled(lab.home_host(home, "laptop"))
    phone = lab.home_host(home, "phone")
    up = laptop.host.start(
        "up", peer("tailscale"), f"--socket={laptop.socket}", "up", f"--login-server={url}", "--timeout=60s"
    )
    address = up.expect(rf"{re.escape(url)}/register/\S+").group(0)
    said = browse(phone, owner_link, address)
    assert "laptop" in said
    assert "laptop has joined" in said
    up.expect("Success")
    status = laptop.status()
    assert status["BackendState"] == "Running"
    (profile,) = status["User"].values()
    assert profile["LoginName"] == "alice"

    server.process.stop()
    assert owner_link.rpartition("/")[2] not in "".join(server.process.lines)
    server.start()  # the owner can sign in: there is no link any more
    assert not kept.exists()
    (node,) = server.nodes()
    assert (node["name"], node["user"]) == ("laptop", "alice")
