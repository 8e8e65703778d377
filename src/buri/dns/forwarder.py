"""Asks upstream resolvers: all of a question's at once by UDP, by TCP where that is cut short or silent; keeps answers.

Every question leaves from a socket of its own, connected to its upstream and with an id of its own, so that nobody else
can answer it (RFC 5452). What upstreams answer is handed on as it came, but for id and age.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict

import msgspec

from buri.core.addresses import AddrPort
from buri.core.errors import PeerError, WireError
from buri.wire.dnsmessage import Answer, Query, ResponseCode, aged, parse_answer, with_id

UDP_TIMEOUT_S = 2.0
TCP_TIMEOUT_S = 5.0
MAX_IN_FLIGHT = 256
MAX_KEPT = 4096
MAX_KEPT_S = 300
_GOOD = frozenset({ResponseCode.NO_ERROR, ResponseCode.NAME_ERROR})


class _Kept(msgspec.Struct, frozen=True):
    message: bytes
    at_s: float
    until_s: float


class Forwarder:
    """One cache and one bound on the questions under way."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[bytes, tuple[AddrPort, ...]], _Kept] = OrderedDict()
        self._in_flight = 0

    def forget(self) -> None:
        """Let go of what was kept: other resolvers, or another network, may say otherwise."""
        self._kept.clear()

    async def ask(self, query: Query, message: bytes, upstreams: tuple[AddrPort, ...]) -> bytes:
        """An upstream's answer to `message`, under its id. Raises PeerError when none answered in time."""
        now_s = asyncio.get_running_loop().time()
        # The asker's flags and EDNS are in the key by the whole message but its id.
        key = (message[2:], upstreams)
        kept = self._kept.get(key)
        if kept is not None and kept.until_s > now_s:
            return with_id(aged(kept.message, int(now_s - kept.at_s)), query.id)
        if self._in_flight >= MAX_IN_FLIGHT:
            raise PeerError(f"{MAX_IN_FLIGHT} DNS questions wait for their upstreams already.")
        self._in_flight += 1
        try:
            answer, said = await self._race(query, message, upstreams)
        finally:
            self._in_flight -= 1
        if said.code in _GOOD and said.ttl_s and not said.truncated:
            self._keep(key, _Kept(answer, now_s, now_s + min(said.ttl_s, MAX_KEPT_S)))
        return with_id(answer, query.id)

    def _keep(self, key: tuple[bytes, tuple[AddrPort, ...]], kept: _Kept) -> None:
        self._kept[key] = kept
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    async def _race(self, query: Query, message: bytes, upstreams: tuple[AddrPort, ...]) -> tuple[bytes, Answer]:
        """The first good answer; a bad one only when nobody has a better."""
        tasks = {asyncio.ensure_future(_ask_one(query, message, upstream)) for upstream in upstreams}
        bad: tuple[bytes, Answer] | None = None
        try:
            while tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.exception() is not None:
                        continue
                    found = task.result()
                    if found[1].code in _GOOD:
                        return found
                    bad = found
        finally:
            for task in tasks:
                task.cancel()
        if bad is not None:
            return bad
        asked = ", ".join(str(upstream) for upstream in upstreams)
        raise PeerError(f"No DNS resolver answered ({asked or 'there is none to ask'}).")


async def _ask_one(query: Query, message: bytes, upstream: AddrPort) -> tuple[bytes, Answer]:
    """By UDP, then by TCP. Raises OSError, TimeoutError or WireError."""
    own = with_id(message, secrets.randbits(16))
    try:
        answer, said = await asyncio.wait_for(_by_udp(query, own, upstream), UDP_TIMEOUT_S)
        if not said.truncated:
            return answer, said
    except (TimeoutError, OSError):
        pass
    return await asyncio.wait_for(_by_tcp(query, own, upstream), TCP_TIMEOUT_S)


def _checked(query: Query, own: bytes, data: bytes) -> Answer:
    said = parse_answer(data)
    if said.id != int.from_bytes(own[:2], "big") or said.question.lower() != query.question.lower():
        raise WireError("an answer to another DNS question came.")
    return said


class _Question(asyncio.DatagramProtocol):
    """Waits for the first datagram that answers the question; what answers another is not looked at."""

    def __init__(self, query: Query, own: bytes) -> None:
        self._query = query
        self._own = own
        self.answer: asyncio.Future[tuple[bytes, Answer]] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self.answer.done():
            return
        try:
            self.answer.set_result((data, _checked(self._query, self._own, data)))
        except WireError:
            return

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _by_udp(query: Query, own: bytes, upstream: AddrPort) -> tuple[bytes, Answer]:
    transport, waiting = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Question(query, own), remote_addr=(str(upstream.address), upstream.port)
    )
    try:
        transport.sendto(own)
        return await waiting.answer
    finally:
        transport.close()
        if waiting.answer.done() and not waiting.answer.cancelled():
            waiting.answer.exception()  # seen


async def _by_tcp(query: Query, own: bytes, upstream: AddrPort) -> tuple[bytes, Answer]:
    reader, writer = await asyncio.open_connection(str(upstream.address), upstream.port)
    try:
        writer.write(len(own).to_bytes(2, "big") + own)
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        return data, _checked(query, own, data)
    except asyncio.IncompleteReadError as error:
        raise WireError("the DNS resolver ended its answer in the middle.") from error
    finally:
        writer.close()
