"""The resolver over loopback, asked by dnspython; its upstreams are programs of the test."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from buri.core.addresses import AddrPort
from buri.dns.server import DNSServer, Resolver
from buri.machine.magicdns import Names
from buri.wire.tailcfg.dns import DNSConfig
from buri.wire.tailcfg.node import Node

HOME = Node(id=1, name="home.tail.example.", addresses=["100.64.0.1/32"])
CONFIG = DNSConfig(proxied=True, domains=["tail.example"])
Answering = Callable[[dns.message.Message, bool], dns.message.Message | None]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


def address_says(text: str, ttl_s: int = 60) -> Answering:
    def answer(query: dns.message.Message, _tcp: bool) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text(query.question[0].name, ttl_s, "IN", "A", text))
        return response

    return answer


def code_says(code: dns.rcode.Rcode) -> Answering:
    def answer(query: dns.message.Message, _tcp: bool) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(code)
        return response

    return answer


class Upstream(asyncio.DatagramProtocol):
    """A name server on both transports of one port; `asked` counts."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.asked = 0
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.asked += 1
        answer = self.answering(dns.message.from_wire(data), False)
        if answer is not None:
            self.transport.sendto(answer.to_wire(), addr)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = self.answering(dns.message.from_wire(await reader.readexactly(length)), True)
        if answer is not None:
            data = answer.to_wire()
            writer.write(struct.pack("!H", len(data)) + data)
        writer.close()


@contextlib.asynccontextmanager
async def upstream(answering: Answering) -> AsyncIterator[tuple[Upstream, AddrPort]]:
    loop = asyncio.get_running_loop()
    server = Upstream(answering)
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    stream = await asyncio.start_server(server.serve, "127.0.0.1", port)
    try:
        yield server, AddrPort.parse(f"127.0.0.1:{port}")
    finally:
        transport.close()
        stream.close()


@contextlib.asynccontextmanager
async def served(*upstreams: AddrPort) -> AsyncIterator[tuple[Resolver, int]]:
    resolver = Resolver()
    resolver.use(Names(CONFIG, (HOME,), host_upstreams=upstreams))
    server = DNSServer(resolver)
    port = await _free_port()
    await server.listen([AddrPort.parse(f"127.0.0.1:{port}")], None)
    try:
        yield resolver, port
    finally:
        await server.close()


async def _free_port() -> int:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    return port


async def ask(port: int, name: str, kind: str = "A", *, tcp: bool = False) -> dns.message.Message:
    send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await send(dns.message.make_query(name, kind), "127.0.0.1", port=port, timeout=15)


def first(message: dns.message.Message) -> str:
    return str(message.answer[0][0].to_text())


def test_names_of_the_tailnet_by_udp_and_tcp() -> None:
    async def main() -> None:
        async with served() as (_, port):
            for tcp in (False, True):
                assert first(await ask(port, "home.tail.example.", tcp=tcp)) == "100.64.0.1"
                assert (await ask(port, "no.tail.example.", tcp=tcp)).rcode() == dns.rcode.NXDOMAIN
            assert (await ask(port, "elsewhere.example.")).rcode() == dns.rcode.SERVFAIL  # nobody to ask

    run(main)


def test_the_rest_is_asked_upstream_once_while_the_answer_lives() -> None:
    async def main() -> None:
        async with upstream(address_says("192.0.2.7")) as (server, where), served(where) as (resolver, port):
            for _ in range(3):
                assert first(await ask(port, "www.example.")) == "192.0.2.7"
            assert server.asked == 1
            resolver.use(Names(CONFIG, (HOME,), host_upstreams=(where,)))
            await ask(port, "www.example.")
            assert server.asked == 2

    run(main)


def test_a_good_answer_wins_over_a_bad_and_a_silent_resolver() -> None:
    async def main() -> None:
        async with (
            upstream(code_says(dns.rcode.SERVFAIL)) as (_, bad),
            upstream(lambda _q, _t: None) as (_, silent),
            upstream(address_says("192.0.2.8")) as (_, good),
            served(bad, silent, good) as (_, port),
        ):
            assert first(await ask(port, "www.example.")) == "192.0.2.8"

    run(main)


def test_a_bad_answer_is_told_when_there_is_no_better() -> None:
    async def main() -> None:
        async with upstream(code_says(dns.rcode.REFUSED)) as (_, bad), served(bad) as (_, port):
            assert (await ask(port, "www.example.")).rcode() == dns.rcode.REFUSED

    run(main)


def test_what_is_cut_short_by_udp_is_asked_by_tcp() -> None:
    def answer(query: dns.message.Message, tcp: bool) -> dns.message.Message:
        response = address_says("192.0.2.9")(query, tcp)
        assert response is not None
        if not tcp:
            response.answer.clear()
            response.flags |= dns.flags.TC
        return response

    async def main() -> None:
        async with upstream(answer) as (_, where), served(where) as (_, port):
            assert first(await ask(port, "www.example.")) == "192.0.2.9"

    run(main)


def test_an_answer_to_another_question_is_not_taken() -> None:
    def answer(query: dns.message.Message, tcp: bool) -> dns.message.Message | None:
        if tcp:
            return address_says("192.0.2.10")(query, tcp)
        wrong = address_says("192.0.2.66")(query, tcp)
        assert wrong is not None
        wrong.id ^= 1
        return wrong

    async def main() -> None:
        async with upstream(answer) as (_, where), served(where) as (_, port):
            assert first(await ask(port, "www.example.")) == "192.0.2.10"

    run(main)


def test_what_is_no_question_gets_a_format_error_or_nothing() -> None:
    async def main() -> None:
        async with served() as (resolver, _):
            answer = await resolver.answer(b"\x12\x34" + bytes(10))
            assert answer is not None
            assert answer[0][:4] == b"\x12\x34\x80\x81"
            assert await resolver.answer(b"short") is None
            assert await resolver.answer(b"\0\0\x80" + bytes(9)) is None

    run(main)
