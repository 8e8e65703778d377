"""What a client may ask inside its Noise session: the `/machine/…` calls, decoded, answered by the domain."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from buri.control.noisefront.exchange import JSON, Request, Response, sentence
from buri.control.noisefront.tunnel import Reply
from buri.control.service import ControlService
from buri.core.errors import RefusedError, WireError
from buri.core.keys import MachinePublic
from buri.wire.badjson import BAD_JSON
from buri.wire.tailcfg.mapping import MapRequest, encode
from buri.wire.tailcfg.register import RegisterRequest

OLDEST_CAPABILITY_VERSION = 68  # streams are read-only from here on: nothing older speaks as this server listens
_BodyT = TypeVar("_BodyT")


class MachineRoutes:
    """Routes by path alone: clients use placeholder hosts."""

    def __init__(self, service: ControlService) -> None:
        self._service = service

    async def handle(self, machine: MachinePublic, request: Request, reply: Reply) -> None:
        """Answer one stream."""
        match (request.method, request.path):
            case ("POST", "/machine/register"):
                await self._register(machine, request, reply)
            case ("POST", "/machine/map"):
                await self._map(machine, request, reply)
            case ("GET", "/machine/whoami"):
                await reply.send(Response(body=f"{machine}\n".encode()))
            case ("POST", "/machine/update-health" | "/machine/audit-log"):
                await reply.send(Response(body=b"{}", content_type=JSON))
            case (_, path) if path.startswith("/machine/"):
                await reply.send(sentence(501, f"This server does not do {path} yet."))
            case _:
                await reply.send(sentence(404, "There is nothing here."))

    async def _register(self, machine: MachinePublic, request: Request, reply: Reply) -> None:
        body = _decode(request.body, RegisterRequest)
        _check_version(body.version)
        response = await self._service.register(machine, body, request.peer)
        await reply.send(Response(body=encode(response), content_type=JSON))

    async def _map(self, machine: MachinePublic, request: Request, reply: Reply) -> None:
        body = _decode(request.body, MapRequest)
        _check_version(body.version)
        try:
            if body.stream:
                await self._stream(machine, body, reply)
            elif body.omit_peers:
                await self._service.update(machine, body)
                await reply.send(Response(content_type=JSON))
            else:
                await reply.send(Response(body=await self._service.full_map(machine, body), content_type=JSON))
        except RefusedError as error:
            if reply.begun:
                raise
            await reply.send(sentence(403, str(error)))

    async def _stream(self, machine: MachinePublic, body: MapRequest, reply: Reply) -> None:
        stream = await self._service.open_map(machine, body)
        try:
            reply.begin()
            while True:
                await reply.write(await stream.next())
        except StopAsyncIteration:
            await reply.finish()
        finally:
            stream.close()


def _decode(body: bytes, kind: type[_BodyT]) -> _BodyT:
    try:
        return msgspec.json.decode(body, type=kind)
    except BAD_JSON as error:
        raise WireError(f"The {kind.__name__} does not parse: {error}.") from error


def _check_version(version: int) -> None:
    if version < OLDEST_CAPABILITY_VERSION:
        raise WireError(
            f"This client speaks capability version {version}, this server wants {OLDEST_CAPABILITY_VERSION} or newer.",
            remedy="Update the client.",
        )
