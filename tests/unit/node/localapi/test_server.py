"""The LocalAPI server over a real Unix socket, with a fake node behind it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from buri.node.localapi import server as server_module
from buri.node.localapi.server import LocalAPIServer
from buri.testing.fakenode import FakeNode
from buri.wire.localapi import BackendState, PingResult

HEAD = "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{more}\r\n"
Scenario = Callable[["Caller", FakeNode], Awaitable[None]]


class Reply:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """Speaks plain HTTP/1.1 to the server, so that the test shares no code with it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path))

    async def call(self, method: str, path: str, body: bytes = b"", **more: str) -> Reply:
        reader, writer = await self.connect()
        writer.write(request(method, path, body, **more))
        reply = await read_reply(reader)
        writer.close()
        return reply


def request(method: str, path: str, body: bytes = b"", host: str = "local-tailscaled.sock", **more: str) -> bytes:
    target = path if path.startswith("/") else f"/localapi/v0/{path}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in more.items())
    return HEAD.format(method=method, target=target, host=host, length=len(body), more=lines).encode() + body


async def read_reply(reader: asyncio.StreamReader, *, body: bool = True) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    length = int(headers.get("content-length", "0")) if body else 0
    return Reply(int(head[0].split()[1]), headers, await reader.readexactly(length))


def play(tmp_path: Path, scenario: Scenario, *, running: bool = True) -> FakeNode:
    async def run() -> FakeNode:
        node = FakeNode(running=running)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            server = LocalAPIServer(node, listener)
            server.start()
            try:
                async with asyncio.timeout(10):
                    await scenario(Caller(tmp_path / "s"), node)
            finally:
                await server.close()
        return node

    return asyncio.run(run())


def test_answers_carry_version_and_capability_and_a_connection_serves_many(tmp_path: Path) -> None:
    async def scenario(caller: Caller, node: FakeNode) -> None:
        reader, writer = await caller.connect()
        for _ in range(2):
            writer.write(request("GET", "status"))
            reply = await read_reply(reader)
            assert reply.status == 200
            assert reply.headers["tailscale-cap"] == "145"
            assert reply.headers["tailscale-version"]
            assert reply.json()["BackendState"] == "Running"
        writer.write(request("GET", "status") + request("GET", "prefs"))  # pipelined
        assert "Peer" in (await read_reply(reader)).json()
        assert "ControlURL" in (await read_reply(reader)).json()
        writer.close()

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", "status", {"host": "burid.example"}, 403),
        ("GET", "status", {"Referer": "http://evil.example"}, 403),
        ("GET", "status", {"Origin": "http://evil.example"}, 403),
        ("GET", "status", {"host": ""}, 200),
        ("GET", "no-such-thing", {}, 404),
        ("GET", "/", {}, 404),
        ("GET", "//[", {}, 400),
        ("GET", "start", {}, 405),
        ("POST", "ping", {}, 400),
        ("POST", "ping?ip=nonsense&type=disco", {}, 400),
        ("POST", "ping?ip=100.64.0.2&type=smoke", {}, 400),
        ("POST", "ping?ip=100.64.0.2&type=ICMP&size=9", {}, 400),
        ("GET", "whois", {}, 400),
        ("GET", "whois?addr=100.64.0.9", {}, 404),
        ("GET", "watch-ipn-bus?mask=many", {}, 400),
        ("PATCH", "prefs", {}, 400),
        ("POST", "debug?action=explode", {}, 409),
    ],
)
def test_a_wrong_request_gets_the_status_for_it(
    tmp_path: Path, method: str, path: str, more: dict[str, str], status: int
) -> None:
    async def scenario(caller: Caller, node: FakeNode) -> None:
        assert (await caller.call(method, path, b"", **more)).status == status

    play(tmp_path, scenario)


def test_bytes_that_are_no_http_are_answered_and_dropped(tmp_path: Path) -> None:
    async def scenario(caller: Caller, node: FakeNode) -> None:
        reader, writer = await caller.connect()
        writer.write(b"\x16\x03\x01 what is this\r\n\r\n")
        assert (await read_reply(reader)).status == 400
        assert await reader.read() == b""
        writer.close()
        assert (await caller.call("GET", "status")).status == 200

    play(tmp_path, scenario)


def test_a_body_past_all_measure_is_refused(tmp_path: Path) -> None:
    async def scenario(caller: Caller, node: FakeNode) -> None:
        body = b" " * (server_module.BODY_LIMIT_BYTES + 1)
        assert (await caller.call("PATCH", "prefs", body)).status == 413

    play(tmp_path, scenario)


def test_others_may_look_but_not_touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "peer_uid", lambda _: 54321 if os.geteuid() != 54321 else 54322)

    async def scenario(caller: Caller, node: FakeNode) -> None:
        assert (await caller.call("GET", "status")).status == 200
        assert (await caller.call("GET", "prefs")).status == 200
        for method, path in (("PATCH", "prefs"), ("POST", "start"), ("POST", "logout"), ("POST", "shutdown")):
            refused = await caller.call(method, path, b"{}")
            assert refused.status == 403
            assert b"access denied" in refused.body
        assert node.asked == []

    play(tmp_path, scenario)


def test_preferences_are_read_checked_and_edited(tmp_path: Path) -> None:
    async def scenario(caller: Caller, node: FakeNode) -> None:
        edited = await caller.call("PATCH", "prefs", b'{"Hostname":"h","HostnameSet":true,"ShieldsUp":true}')
        assert (edited.json()["Hostname"], edited.json()["ShieldsUp"]) == ("h", False)
        assert (await caller.call("POST", "check-prefs", b'{"Hostname":"x"}')).json()["Error"] == ""
        assert "no SSH" in (await caller.call("POST", "check-prefs", b'{"RunSSH":true}')).json()["Error"]
        refused = await caller.call("PATCH", "prefs", b'{"RunSSH":true,"RunSSHSet":true}')
        assert (refused.status, refused.headers["buri-exit-code"]) == (400, "2")
        assert not node.current.run_ssh

    play(tmp_path, scenario)


def test_the_bus_is_open_before_its_head_is_sent(tmp_path: Path) -> None:
    async def scenario(caller: Caller, node: FakeNode) -> None:
        reader, writer = await caller.connect()
        writer.write(request("GET", "watch-ipn-bus?mask=0"))
        assert (await read_reply(reader, body=False)).headers["transfer-encoding"] == "chunked"
        assert (await caller.call("POST", "start", b"{}")).status == 204  # says the state again
        size = int(await reader.readline(), 16)
        assert json.loads(await reader.readexactly(size)) == {"State": int(BackendState.RUNNING)}
        writer.close()
        while "watch ended" not in node.asked:
            await asyncio.sleep(0)

    play(tmp_path, scenario)


def test_a_caller_who_goes_away_ends_its_ping(tmp_path: Path) -> None:
    async def scenario(caller: Caller, node: FakeNode) -> None:
        _, writer = await caller.connect()
        writer.write(request("POST", "ping?ip=100.64.0.2&type=disco"))
        while "ping 100.64.0.2 disco 0" not in node.asked:
            await asyncio.sleep(0)
        writer.close()
        while "ping ended" not in node.asked:
            await asyncio.sleep(0)

    play(tmp_path, scenario)


def test_ping_whois_and_the_rest_answer_in_upstreams_shapes(tmp_path: Path) -> None:
    async def scenario(caller: Caller, node: FakeNode) -> None:
        node.pings.append(PingResult(node_ip="100.64.0.2", endpoint="192.0.2.1:41641", latency_seconds=0.002))
        pong = await caller.call("POST", "ping?ip=100.64.0.2&type=disco&size=100")
        assert pong.json()["Endpoint"] == "192.0.2.1:41641"
        whois = (await caller.call("GET", "whois?addr=100.64.0.2:80")).json()
        assert (whois["Node"]["Key"], whois["UserProfile"]["LoginName"]) == (
            "nodekey:" + "22" * 32,
            "alice@example.com",
        )
        assert list((await caller.call("GET", "derpmap")).json()["Regions"]) == ["9"]
        assert len((await caller.call("GET", "profiles/")).json()) == 1
        assert (await caller.call("GET", "usermetrics")).body.startswith(b"# TYPE")
        assert (await caller.call("POST", "buri/netcheck")).json()["PreferredDERP"] == 9

    play(tmp_path, scenario)


def test_an_unforeseen_failure_is_told_without_its_insides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(caller: Caller, node: FakeNode) -> None:
        node.state = None  # type: ignore[assignment] # a broken node is the point
        failed = await caller.call("GET", "status")
        assert (failed.status, failed.headers["buri-exit-code"]) == (500, "70")
        assert b"Traceback" not in failed.body
        assert b"NoneType" not in failed.body

    play(tmp_path, scenario)
    assert "unforeseen" in caplog.text


def test_the_answer_to_shutdown_is_out_before_the_end(tmp_path: Path) -> None:
    async def scenario(caller: Caller, node: FakeNode) -> None:
        assert (await caller.call("POST", "shutdown")).status == 204
        assert node.stopped.is_set()

    play(tmp_path, scenario)
