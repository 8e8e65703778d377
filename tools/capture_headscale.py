"""Writes tests/vectors/headscale: what a running headscale says in a netmap's stream to one node as things happen.

Usage: `python tools/capture_headscale.py [DIRECTORY]`; needs `headscale` on PATH. Keys and times differ each time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from buri.core.addresses import AddrPort
from buri.testing.controlservers import HeadscaleControl, running
from buri.testing.loadnode import Frames, LoadNode, Server, Text

UNKNOWN = "hskey-auth-" + "0" * 12 + "-" + "0" * 64
QUIET_S = 3.0  # headscale gathers for up to 1.3 s before it speaks
VECTORS = Path(__file__).resolve().parents[1] / "tests" / "vectors" / "headscale"


class Recorder(Frames):
    """Frames that remembers every message."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Any] = []

    def decode(self, message: bytes) -> list[Text]:
        texts = super().decode(message)
        self.messages.append(json.loads(b"".join(text.json for text in texts)))
        return texts


async def capture(directory: Path) -> None:
    """Let two nodes live through everything, and write what the first was told."""
    directory.mkdir(parents=True, exist_ok=True)
    async with running(HeadscaleControl) as (control, server, auth_key):
        assert isinstance(control, HeadscaleControl)
        heard, other = Recorder(), LoadNode(2, server, os.urandom, Frames())
        ours = LoadNode(1, server, os.urandom, heard)

        async def step(name: str, *work: Awaitable[Any]) -> None:
            heard.messages.clear()
            for one in work:
                await one
            await asyncio.sleep(QUIET_S)
            (directory / f"{name}.json").write_text(json.dumps(heard.messages, indent=1) + "\n")

        async def say(*words: str) -> None:
            await asyncio.to_thread(control.words, *words)

        answers = await registrations(control, server, auth_key)
        (directory / "registrations.json").write_text(json.dumps(answers, indent=1) + "\n")
        await step("first", _join(ours, auth_key))
        await step("peer-joins", _join(other, auth_key))
        await step("peer-moves", other.tell_endpoint(AddrPort(ip_address("198.51.100.7"), 41641)))
        await step("peer-leaves", _leave(other))
        await step("peer-returns", _return(other))
        await step("peer-renamed", say("nodes", "rename", "--identifier=3", "bridget"))
        await step("self-renamed", say("nodes", "rename", "--identifier=2", "anna"))
        await step("peer-expired", say("nodes", "expire", "--identifier=3"))
        await step("self-expired", say("nodes", "expire", "--identifier=2"))
        await step("peer-deleted", say("nodes", "delete", "--identifier=3", "--force"))


async def registrations(control: HeadscaleControl, server: Server, auth_key: str) -> dict[str, Any]:
    """What it answers to a register request, in each case; nothing is left of who asked."""
    once = str((await asyncio.to_thread(control.words, "preauthkeys", "create", "--user=1"))["key"])
    answers: dict[str, Any] = {}
    wrong = auth_key[:-64] + UNKNOWN[-64:]
    cases = (("taken", once), ("spent", once), ("unknown", UNKNOWN), ("wrong", wrong), ("interactive", ""))
    nodes = {name: LoadNode(number, server, os.urandom, Frames()) for number, (name, _) in enumerate(cases, 7)}
    for name, key in cases:
        await nodes[name].connect()
        answers[name] = json.loads(await nodes[name].ask_to_register(key))
    (taken,) = await asyncio.to_thread(control.words, "nodes", "list")
    await asyncio.to_thread(control.words, "nodes", "expire", f"--identifier={taken['id']}")
    answers["expired"] = json.loads(await nodes["taken"].ask_to_register(""))
    await asyncio.to_thread(control.words, "nodes", "delete", f"--identifier={taken['id']}", "--force")
    return answers


async def _join(node: LoadNode, auth_key: str) -> None:
    await node.connect()
    await node.register(auth_key)
    node.open_map()


async def _leave(node: LoadNode) -> None:
    node.close()
    await asyncio.sleep(12)  # it waits that long before a node that went is offline


async def _return(node: LoadNode) -> None:
    await node.connect()
    node.open_map()


def main() -> int:
    """Capture, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=VECTORS)
    directory = parser.parse_args().directory
    asyncio.run(capture(directory))
    print(f"wrote {directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
