"""A crowd of nodes on a control server: each joins, keeps its map stream open, and comes back whenever it loses it.

Run as a program: `all N have their map` is printed each time that the last of them has one, `lost` when the first goes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from buri.core.errors import BuriError
from buri.core.keys import MachinePublic
from buri.netio.streams import http
from buri.testing.loadnode import Frames, LoadNode, Server

PAUSE_S = 0.1


class Member(LoadNode):
    """A node that can be waited for."""

    def __init__(self, number: int, server: Server, frames: Frames) -> None:
        super().__init__(number, server, os.urandom, frames)
        self.gone = asyncio.Event()
        self.mapped = asyncio.Event()
        self.on_news = lambda _: self.mapped.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.gone.set()
        self.mapped.set()


class Crowd:
    """Counts who has a map now."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._mapped = 0

    async def live(self, member: Member, auth_key: str) -> None:
        """One member's life, without end."""
        while True:
            member.gone.clear()
            member.mapped.clear()
            try:
                await member.connect()
                await member.register(auth_key)
                member.open_map()
                await member.mapped.wait()
                if not member.gone.is_set():
                    self._came()
                    await member.gone.wait()
                    self._went()
            except (OSError, BuriError):
                member.close()
            await asyncio.sleep(PAUSE_S)

    def _came(self) -> None:
        self._mapped += 1
        if self._mapped == self._size:
            _say(f"all {self._size} have their map")

    def _went(self) -> None:
        if self._mapped == self._size:
            _say("lost")
        self._mapped -= 1


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def _main(host: str, port: int, key_file: Path, size: int) -> None:
    _, body = await http("GET", f"http://{host}:{port}/key?v=130")
    server = Server(host, port, MachinePublic.parse(json.loads(body)["publicKey"]))
    frames, crowd = Frames(), Crowd(size)
    members = [Member(number, server, frames) for number in range(size)]
    await asyncio.gather(*(crowd.live(member, key_file.read_text().strip()) for member in members))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))
