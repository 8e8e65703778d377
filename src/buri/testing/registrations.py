"""A stream of machines that join a control server, and a memory of all that it acknowledged.

Run as a program beside a server that is being killed: each machine gets an auth key of its own by the admin socket, joins
with it over real Noise, and asks for its address; every step is tried again with the same words until the server
answers. What was answered is printed, one JSON line a machine, and is what the server must know for ever after.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from buri.core.errors import BuriError, StateError
from buri.core.keys import MachinePublic
from buri.netio.streams import http
from buri.testing.loadnode import Frames, LoadNode, Server
from buri.wire import adminapi

TRY_S = 5.0  # for one step on one connection
PAUSE_S = 0.05  # between machines and between tries: a stream, not a flood
_AnswerT = TypeVar("_AnswerT")


class Acknowledged(msgspec.Struct, frozen=True):
    """What the server said of one machine: its key and the auth key it came with are known, the addresses are its own."""

    number: int
    node_key: str
    auth_key_id: int
    addresses: list[str]


class Registrations:
    """Lets machines join, one after the other, until `stop` is set."""

    def __init__(self, server: Server, admin: Path, stop: asyncio.Event, say: Callable[[Acknowledged], None]) -> None:
        self._server = server
        self._admin = admin
        self._stop = stop
        self._say = say
        self._frames = Frames()

    async def run(self, user: str, most: int) -> None:
        """Go on until told to stop or `most` machines have joined; the one under way then is given up."""
        for number in range(most):
            node = LoadNode(number, self._server, os.urandom, self._frames)
            try:
                key = await self._insist(partial(self._auth_key, user))
                await self._insist(partial(self._join, node, key.key))
                addresses = await self._insist(node.own_addresses)
            except StateError:  # told to stop
                return
            finally:
                node.close()
            self._say(Acknowledged(number, str(node.key), key.id, addresses))

    async def _join(self, node: LoadNode, auth_key: str) -> None:
        await node.connect()
        await node.register(auth_key)

    async def _auth_key(self, user: str) -> adminapi.NewAuthKey:
        reader, writer = await asyncio.open_unix_connection(str(self._admin), limit=adminapi.MAX_LINE_BYTES)
        try:
            writer.write(msgspec.json.encode(adminapi.CreateAuthKey(user=user)) + b"\n")
            reply = adminapi.reply_decoder.decode(await reader.readuntil(b"\n"))
        finally:
            writer.close()
        if reply.error is not None:
            raise BuriError(reply.error.message)
        return msgspec.json.decode(reply.result, type=adminapi.NewAuthKey)

    async def _insist(self, step: Callable[[], Awaitable[_AnswerT]]) -> _AnswerT:
        """Take a step again and again, as a client does whose server is away; StateError when told to stop."""
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(TRY_S):
                    answer = await step()
                await asyncio.sleep(PAUSE_S)
                return answer
            except (OSError, EOFError, TimeoutError, BuriError) as error:
                if "already used" in str(error) or "not valid" in str(error):
                    raise  # an acknowledged key was forgotten, or taken without an answer to its own machine
                await asyncio.sleep(PAUSE_S)
        raise StateError("Told to stop.")


async def _main(host: str, port: int, admin: Path, user: str, most: int) -> None:
    status, body = await http("GET", f"http://{host}:{port}/key?v=130")
    if status != 200:
        raise BuriError(f"/key answers {status}.")
    server = Server(host, port, MachinePublic.parse(json.loads(body)["publicKey"]))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sys.stdout.write("ready\n")
    sys.stdout.flush()

    def say(acknowledged: Acknowledged) -> None:
        sys.stdout.write(msgspec.json.encode(acknowledged).decode() + "\n")
        sys.stdout.flush()

    await Registrations(server, admin, stop, say).run(user, most)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
