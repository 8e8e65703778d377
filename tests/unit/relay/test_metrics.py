"""A relay's figures over HTTP."""

from __future__ import annotations

import asyncio
import json

import pytest

from buri.core.addresses import AddrPort
from buri.core.errors import InUseError, StateError, SystemFault
from buri.engine.frontport import FrontStats
from buri.relay.metrics import MetricsServer, answer

STATS = FrontStats({"packets_sent": 7, "curr_connections": 2, "stun_answered": 5}, ())


def body(head: str) -> tuple[str, str]:
    head_, _, body_ = answer(head.encode(), lambda: STATS).decode().partition("\r\n\r\n")
    return head_.splitlines()[0], body_


def test_prometheus_gets_counters_and_gauges() -> None:
    status, text = body("GET /metrics HTTP/1.1\r\n\r\n")
    assert status == "HTTP/1.1 200 OK"
    assert "# TYPE derp_packets_sent_total counter\nderp_packets_sent_total 7\n" in text
    assert "# TYPE derp_curr_connections gauge\nderp_curr_connections 2\n" in text
    assert "buri_stun_answered_total 5\n" in text


def test_expvar_has_derpers_names() -> None:
    _, text = body("GET /debug/vars?x=1 HTTP/1.0\r\n\r\n")
    assert json.loads(text) == {"derp": {"packets_sent": 7, "curr_connections": 2}, "buri": {"stun_answered": 5}}


def test_head_has_the_length_and_no_body() -> None:
    made = answer(b"HEAD /metrics HTTP/1.1\r\n\r\n", lambda: STATS)
    whole = answer(b"GET /metrics HTTP/1.1\r\n\r\n", lambda: STATS)
    assert made.endswith(b"\r\n\r\n")
    assert whole.startswith(made)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("\x00\x01\r\n\r\n", "405"),
    ],
)
def test_all_else_is_refused(head: str, status: str) -> None:
    assert body(head)[0].split()[1] == status


def test_a_stopped_relay_has_no_figures() -> None:
    def stopped() -> FrontStats:
        raise StateError("The front door has stopped.")

    assert answer(b"GET /metrics HTTP/1.1\r\n\r\n", stopped).startswith(b"HTTP/1.1 503")


def test_it_serves_one_request_a_connection_and_outlives_nonsense() -> None:
    async def run() -> None:
        server = await MetricsServer.open(AddrPort.parse("127.0.0.1:0"), lambda: STATS)
        port = server.listening().port
        for ask, got in ((b"x" * 9000, b""), (b"GET", b""), (b"GET /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ask)
            writer.write_eof()
            try:
                answered = await reader.read()
            except ConnectionResetError:  # closed with our bytes unread
                answered = b""
            assert answered.startswith(got)
            assert bool(answered) == bool(got)
            writer.close()
        with pytest.raises(InUseError, match=f"127.0.0.1:{port}"):
            await MetricsServer.open(server.listening(), lambda: STATS)
        await server.close()
        with pytest.raises(SystemFault, match=r"not an address of this machine.*--metrics") as caught:
            await MetricsServer.open(AddrPort.parse("192.0.2.1:9100"), lambda: STATS)
        assert caught.value.exit_code == 3

    asyncio.run(run())
