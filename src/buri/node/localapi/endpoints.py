"""The endpoints of LocalAPI that exist in Buri, and what each asks of the node (wire reference 1g).

A path not in the table does not exist (404); a method not in its row is refused (405). Rows say who may: "read" is
everyone on the host, "write" is root and the operator. Paths under `buri/` are ours.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from buri.core.errors import BuriError
from buri.node.localapi.backend import Backend
from buri.node.localapi.exchange import NO_CONTENT, TEXT, Refusal, Request, Response, Stream, answer
from buri.wire.badjson import BAD_JSON
from buri.wire.localapi import ErrorReply, MaskedPrefs, NotifyMask, Options, Prefs

Handler = Callable[[Request], Awaitable[Response | Stream]]
READ, WRITE = False, True
PING_KINDS = ("disco", "TSMP", "ICMP", "peerapi")
_Body = TypeVar("_Body")


class Endpoints:
    """Answers requests out of a backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._table: dict[str, dict[str, tuple[bool, Handler]]] = {
            "status": {"GET": (READ, self._status)},
            "prefs": {"GET": (READ, self._prefs), "PATCH": (WRITE, self._edit_prefs)},
            "check-prefs": {"POST": (WRITE, self._check_prefs)},
            "start": {"POST": (WRITE, self._start)},
            "login-interactive": {"POST": (WRITE, self._login_interactive)},
            "logout": {"POST": (WRITE, self._logout)},
            "watch-ipn-bus": {"GET": (READ, self._watch)},
            "ping": {"POST": (READ, self._ping)},
            "whois": {"GET": (READ, self._whois)},
            "derpmap": {"GET": (READ, self._derp_map)},
            "profiles/": {"GET": (READ, self._profiles)},
            "profiles/current": {"GET": (READ, self._profile)},
            "serve-config": {"GET": (READ, self._serve_config)},
            "metrics": {"GET": (WRITE, self._metrics)},
            "usermetrics": {"GET": (READ, self._metrics)},
            "upload-client-metrics": {"POST": (READ, self._drop)},
            "debug": {"POST": (WRITE, self._debug)},
            "reset-auth": {"POST": (WRITE, self._reset_auth)},
            "shutdown": {"POST": (WRITE, self._shutdown)},
            "buri/netcheck": {"POST": (READ, self._netcheck)},
            "buri/netmap": {"GET": (READ, self._netmap)},
        }

    async def respond(self, request: Request) -> Response | Stream:
        """Answer one request; raises Refusal for a wrong one, BuriError for what the node could not do."""
        row = self._table.get(request.path)
        if row is None:
            raise Refusal(404, "404 page not found")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in row:
            raise Refusal(405, f"unsupported method, want {' or '.join(row)}")
        write, handler = row[method]
        if write and not request.rights.write:
            raise Refusal(403, f"{request.path} access denied")
        return await handler(request)

    # ---- status and preferences -------------------------------------------------------------------------------------

    async def _status(self, request: Request) -> Response:
        return answer(await self._backend.status(peers=request.query.get("peers") != "false"))

    async def _prefs(self, request: Request) -> Response:
        return answer(await self._backend.prefs())

    async def _edit_prefs(self, request: Request) -> Response:
        return answer(await self._backend.edit_prefs(_decode(request.body, MaskedPrefs)))

    async def _check_prefs(self, request: Request) -> Response:
        prefs = _decode(request.body, Prefs)
        try:
            await self._backend.check_prefs(prefs)
        except BuriError as error:
            return answer(ErrorReply(error=str(error)))
        return answer(ErrorReply())

    # ---- login ------------------------------------------------------------------------------------------------------

    async def _start(self, request: Request) -> Response:
        await self._backend.start(_decode(request.body, Options))
        return NO_CONTENT

    async def _login_interactive(self, request: Request) -> Response:
        await self._backend.login_interactive()
        return NO_CONTENT

    async def _logout(self, request: Request) -> Response:
        await self._backend.logout()
        return NO_CONTENT

    async def _profiles(self, request: Request) -> Response:
        profile = await self._backend.profile()
        return answer([profile] if profile.id else [])

    async def _profile(self, request: Request) -> Response:
        return answer(await self._backend.profile())

    async def _reset_auth(self, request: Request) -> Response:
        await self._backend.reset_auth()
        return NO_CONTENT

    # ---- the bus ----------------------------------------------------------------------------------------------------

    async def _watch(self, request: Request) -> Stream:
        return Stream(self._lines(NotifyMask(_number(request, "mask"))))

    @contextmanager
    def _lines(self, mask: NotifyMask) -> Iterator[AsyncIterator[bytes]]:
        with self._backend.watch(mask) as notices:
            yield (msgspec.json.encode(notice) + b"\n" async for notice in notices)

    # ---- other nodes and the network --------------------------------------------------------------------------------

    async def _ping(self, request: Request) -> Response:
        try:
            address = ipaddress.ip_address(_need(request, "ip"))
        except ValueError as error:
            raise Refusal(400, "invalid IP") from error
        kind = _need(request, "type")
        if kind not in PING_KINDS:
            raise Refusal(400, f"unknown ping type {kind!r}")
        size_bytes = _number(request, "size")
        if size_bytes and kind != "disco":
            raise Refusal(400, "'size' parameter is only supported with disco pings")
        patience_s = _number(request, "buri-patience-ms") / 1000 or None
        return answer(await self._backend.ping(address, kind, size_bytes, patience_s))

    async def _whois(self, request: Request) -> Response:
        found = await self._backend.whois(_need(request, "addr"), request.query.get("proto", ""))
        if found is None:
            raise Refusal(404, "no match for IP:port")
        return answer(found)

    async def _derp_map(self, request: Request) -> Response:
        return answer(await self._backend.derp_map())

    async def _netcheck(self, request: Request) -> Response:
        return answer(await self._backend.netcheck())

    async def _netmap(self, request: Request) -> Response:
        return answer(await self._backend.netmap())

    # ---- the daemon itself ------------------------------------------------------------------------------------------

    async def _serve_config(self, request: Request) -> Response:
        return Response(body=b"{}\n", headers=(("Etag", '""'),))  # nothing is served; `tailscale status` asks for it

    async def _metrics(self, request: Request) -> Response:
        return Response(body=(await self._backend.metrics()).encode(), content_type="text/plain; version=0.0.4")

    async def _drop(self, request: Request) -> Response:
        return Response(body=b"{}\n")  # Tailscale's command line counts its own use; nobody here wants to know

    async def _debug(self, request: Request) -> Response:
        said = await self._backend.debug(_need(request, "action"))
        return Response(body=f"{said or 'done'}\n".encode(), content_type=TEXT)

    async def _shutdown(self, request: Request) -> Response:
        await self._backend.shutdown()
        return NO_CONTENT


def _decode(body: bytes, shape: type[_Body]) -> _Body:
    try:
        return msgspec.json.decode(body, type=shape)
    except BAD_JSON as error:
        raise Refusal(400, f"invalid JSON body: {error}") from error


def _need(request: Request, name: str) -> str:
    value = request.query.get(name, "")
    if not value:
        raise Refusal(400, f"missing '{name}' parameter")
    return value


def _number(request: Request, name: str) -> int:
    text = request.query.get(name, "") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refusal(400, f"invalid '{name}' parameter")
    return int(text)
