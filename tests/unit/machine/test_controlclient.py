"""The control client's ways: joining, reporting, failing, coming back, leaving."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError, WireError
from buri.core.keys import NodePrivate
from buri.machine.controlcalls import CAPABILITY_VERSION, Report
from buri.machine.controlclient import STREAM_SILENCE_S, Server
from buri.machine.controlevents import (
    BrowserURL,
    ControlState,
    Dial,
    FetchKey,
    HangUp,
    LoggedIn,
    LoggedOut,
    LoginFailed,
    LoginURL,
    NetmapChanged,
    NewKeyWanted,
    PingAsked,
    Trouble,
)
from buri.testing.controlbench import DISCO, KEY_JSON, NODE, UPGRADED, Bench
from buri.wire.tailcfg.mapping import PingRequest
from buri.wire.tailcfg.node import Hostinfo

OTHER = NodePrivate.from_entropy(b"o" * 32)
ADDRESS = AddrPort(ip_address("192.0.2.1"), 41641)


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "authority"),
    [
        ("https://control.example.com", "control.example.com", 443, True, "control.example.com"),
        ("https://control.example.com:8443/", "control.example.com", 8443, True, "control.example.com:8443"),
        ("http://10.0.0.1:8080", "10.0.0.1", 8080, False, "10.0.0.1:8080"),
        ("http://[fd00::1]", "fd00::1", 80, False, "[fd00::1]"),
    ],
)
def test_a_url_says_where_to_dial(url: str, host: str, port: int, tls: bool, authority: str) -> None:
    server = Server.parse(url)
    assert (server.host, server.port, server.tls, server.authority) == (host, port, tls, authority)
    assert not server.url.endswith("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "control.example.com",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://x:port",
        "http://x/path",
        "http://x/?query",
        "http://[::1",
        "http://x\0",
        "https://user:secret@x",
    ],
)
def test_other_urls_are_the_users_fault(url: str) -> None:
    with pytest.raises(ConfigError, match="not a control server's URL"):
        Server.parse(url)


def test_joining_with_an_auth_key() -> None:
    bench = Bench()
    bench.client.set_report(Report(Hostinfo(hostname="kichijouji"), ((ADDRESS, 1),)), bench.now)
    bench.client.login(NODE, bench.now, auth_key="tskey-auth-x")
    assert bench.take_orders() == [FetchKey(f"http://control.test:8080/key?v={CAPABILITY_VERSION}")]
    bench.open()
    assert bench.client.state is ControlState.CONNECTED
    register = bench.request("/machine/register")
    assert register.json["Auth"] == {"AuthKey": "tskey-auth-x"}
    assert register.json["NodeKey"] == str(NODE.public())
    assert register.json["Hostinfo"]["Hostname"] == "kichijouji"
    bench.answer(register, {"MachineAuthorized": True, "User": {"ID": 5}, "Login": {"LoginName": "ame@example.com"}})
    logged_in = bench.take(LoggedIn)
    assert (logged_in.key, logged_in.user.id, logged_in.machine_authorized) == (NODE, 5, True)
    lite = bench.request("/machine/map", OmitPeers=True)
    assert lite.json["Endpoints"] == ["192.0.2.1:41641"]
    assert lite.json["EndpointTypes"] == [1]
    assert lite.json["DiscoKey"] == str(DISCO)
    stream = bench.request("/machine/map", Stream=True)
    assert stream.json["Compress"] == "zstd"
    assert stream.json["KeepAlive"] is True
    bench.answer(lite)
    bench.begin_stream(stream)
    bench.send_map(stream, {"Node": {"ID": 1, "Name": "me."}, "Peers": [{"ID": 2}]})
    changed = bench.take(NetmapChanged)
    assert changed.netmap.self_node.name == "me."
    assert changed.change.upserted == {2}
    bench.send_map(stream, {"PeersRemoved": [2]})
    assert bench.take(NetmapChanged).netmap.peers == {}


def test_an_interactive_login_is_a_url_and_a_long_poll() -> None:
    bench = Bench()
    bench.client.login(NODE, bench.now)
    bench.open()
    bench.answer(bench.request("/machine/register"), {"AuthURL": "http://control.test/a/1"})
    assert bench.take(LoginURL) == LoginURL("http://control.test/a/1", lost=False)
    followup = bench.request("/machine/register", Followup="http://control.test/a/1")
    assert followup.json["NodeKey"] == str(NODE.public())
    bench.later(3600)  # a person takes their time
    bench.answer(followup, {"MachineAuthorized": True})
    assert bench.take(LoggedIn).key == NODE


def test_a_follow_up_that_is_answered_early_does_not_spin() -> None:
    bench = Bench()
    bench.client.login(NODE, bench.now)
    bench.open()
    bench.answer(bench.request("/machine/register"), {"AuthURL": "http://control.test/a/1"})
    bench.answer(
        bench.request("/machine/register", Followup="http://control.test/a/1"), {"AuthURL": "http://control.test/a/1"}
    )
    assert bench.requests == []
    assert bench.until_timeout() > 0.1
    bench.request("/machine/register", Followup="http://control.test/a/1")
    assert len(bench.heard(LoginURL)) == 1


def test_a_dropped_follow_up_is_asked_again_after_the_reconnect() -> None:
    bench = Bench()
    bench.client.login(NODE, bench.now)
    bench.open()
    bench.answer(bench.request("/machine/register"), {"AuthURL": "http://control.test/a/1"})
    bench.request("/machine/register", Followup="http://control.test/a/1")
    bench.client.handle_failed("connection reset", bench.now)
    bench.until_timeout()
    bench.open()
    bench.request("/machine/register", Followup="http://control.test/a/1")


def test_a_refused_login_says_so_and_ends() -> None:
    bench = Bench()
    bench.client.login(NODE, bench.now, auth_key="spent")
    bench.open()
    bench.answer(bench.request("/machine/register"), {"Error": "The auth key was used already."})
    assert bench.take(LoginFailed).message == "The auth key was used already."
    assert bench.client.state is ControlState.OFF
    assert bench.client.next_timeout() is None


def test_an_http_error_on_register_is_shown_with_its_text() -> None:
    bench = Bench()
    bench.client.login(NODE, bench.now, auth_key="x")
    bench.open()
    bench.answer(bench.request("/machine/register"), b"invalid auth key\n", status=401)
    assert "HTTP 401: invalid auth key" in bench.take(LoginFailed).message


@pytest.mark.parametrize("status", ["abc", "", "2000", "²00"])
def test_a_status_that_is_no_number_ends_the_session_with_a_sentence(status: str) -> None:
    bench = Bench(key=NODE)
    bench.client.connect(bench.now)
    bench.open()
    bench.answer(bench.request("/machine/register"), status=status)
    assert "status" in bench.take(Trouble).message
    assert bench.client.state is ControlState.WAITING


@pytest.mark.parametrize(
    ("headers", "least_s", "most_s"),
    [
        ({"retry_after": "40"}, 40, 40),
        ({}, 5, 10),
        ({"retry_after": "999999"}, 3600, 3600),
        ({"retry_after": "Tue, 24 Nov 2026 10:00:30 GMT", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 30, 30),
        ({"retry_after": "soon"}, 5, 10),
        ({"retry_after": "²"}, 5, 10),
        ({"retry_after": "Tue, 24 Nov 2026 10:00:30 -0000", "date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 5, 10),
    ],
)
def test_too_many_requests_is_waited_out(headers: dict[str, str], least_s: float, most_s: float) -> None:
    bench = Bench()
    bench.client.login(NODE, bench.now, auth_key="x")
    bench.open()
    bench.answer(bench.request("/machine/register"), b"slow down", status=429, **headers)
    assert bench.heard(LoginFailed) == []
    at = bench.client.next_timeout()
    assert at is not None
    assert least_s <= at - bench.now <= most_s
    bench.take_orders()
    bench.client.connect(bench.now)
    assert bench.take_orders() == [], "patience was asked for"
    bench.until_timeout()
    bench.open()
    bench.request("/machine/register")


def test_a_key_the_server_holds_for_expired_is_replaced_by_a_new_one() -> None:
    bench = Bench(key=NODE)
    bench.client.connect(bench.now)
    bench.open()
    bench.answer(bench.request("/machine/register"), {"NodeKeyExpired": True})
    bench.take(NewKeyWanted)
    bench.client.login(OTHER, bench.now, old=NODE.public())
    register = bench.request("/machine/register", NodeKey=str(OTHER.public()))
    assert register.json["OldNodeKey"] == str(NODE.public())


def test_a_server_that_holds_every_key_for_expired_is_not_asked_for_ever() -> None:
    bench = Bench(key=NODE)
    bench.client.connect(bench.now)
    bench.open()
    bench.answer(bench.request("/machine/register"), {"NodeKeyExpired": True})
    bench.take(NewKeyWanted)
    bench.client.login(OTHER, bench.now, old=NODE.public())
    bench.answer(bench.request("/machine/register", NodeKey=str(OTHER.public())), {"NodeKeyExpired": True})
    assert "new key for expired as well" in bench.take(LoginFailed).message
    assert bench.requests == []


def test_a_rotation_keeps_the_old_stream_until_the_server_took_the_new_key() -> None:
    bench = Bench()
    stream = bench.registered()
    bench.client.login(OTHER, bench.now, old=NODE.public())
    register = bench.request("/machine/register", OldNodeKey=str(NODE.public()))
    bench.answer(register, {"AuthURL": "http://control.test/a/2"})
    followup = bench.request("/machine/register", Followup="http://control.test/a/2")
    bench.send_map(stream, {"Domain": "still.here"})
    assert bench.client.netmap is not None
    assert bench.client.netmap.domain == "still.here"
    bench.answer(followup, {"MachineAuthorized": True})
    assert bench.cancelled == [stream.stream]
    bench.request("/machine/map", Stream=True, NodeKey=str(OTHER.public()))
    assert bench.client.key == OTHER


def test_a_failed_rotation_leaves_the_session_as_it_was() -> None:
    bench = Bench()
    stream = bench.registered()
    bench.client.login(OTHER, bench.now, auth_key="bad", old=NODE.public())
    bench.answer(bench.request("/machine/register", NodeKey=str(OTHER.public())), {"Error": "no"})
    assert bench.take(LoginFailed).message == "no"
    bench.send_map(stream, {"Domain": "still.here"})
    assert bench.client.key == NODE
    assert bench.client.netmap is not None
    assert bench.client.netmap.domain == "still.here"


def test_a_known_node_registers_once_a_process_and_maps_at_every_reconnect() -> None:
    bench = Bench(key=NODE)
    bench.client.connect(bench.now)
    bench.open()
    register = bench.request("/machine/register")
    assert "Auth" not in register.json
    bench.answer(register, {"MachineAuthorized": True})
    bench.begin_stream(bench.request("/machine/map", Stream=True))
    bench.client.handle_failed("connection reset", bench.now)
    assert bench.take(Trouble).message == "The connection to the control server was lost: connection reset."
    bench.requests.clear()
    bench.until_timeout()
    bench.open()
    assert sorted(request.path for request in bench.requests) == ["/machine/map", "/machine/map"]


def test_a_stream_that_a_server_refuses_makes_the_node_register_again() -> None:
    bench = Bench()
    stream = bench.registered()
    bench.end_stream(stream)
    bench.until_timeout()
    bench.open()
    bench.answer(bench.request("/machine/map", Stream=True), b"no such node", status=404)
    bench.until_timeout()
    bench.open()
    bench.answer(bench.request("/machine/register", NodeKey=str(NODE.public())), {"AuthURL": "http://control.test/a/1"})
    assert bench.take(LoginURL).lost


def test_reports_are_merged_and_one_at_a_time() -> None:
    bench = Bench()
    bench.registered()
    first = bench.request("/machine/map", OmitPeers=True)
    for name in ("one", "two", "three"):
        bench.client.set_report(Report(Hostinfo(hostname=name)), bench.now)
    assert bench.requests == []
    bench.answer(first)
    bench.until_timeout()
    second = bench.request("/machine/map", OmitPeers=True)
    assert second.json["Hostinfo"]["Hostname"] == "three"
    bench.client.set_report(Report(Hostinfo(hostname="three")), bench.now)
    bench.answer(second)
    assert bench.requests == []


def test_a_report_the_server_did_not_take_is_sent_again() -> None:
    bench = Bench()
    bench.registered()
    bench.answer(bench.request("/machine/map", OmitPeers=True), b"busy", status=500)
    bench.until_timeout()
    bench.request("/machine/map", OmitPeers=True)


def test_keepalives_hold_the_stream_and_silence_ends_it() -> None:
    bench = Bench()
    stream = bench.registered()
    bench.answer(bench.request("/machine/map", OmitPeers=True))
    for _ in range(3):
        bench.later(STREAM_SILENCE_S - 1)
        bench.send_map(stream, {"KeepAlive": True})
    assert bench.client.state is ControlState.CONNECTED
    bench.later(STREAM_SILENCE_S)
    assert bench.take(Trouble).message == "The control server fell silent."
    assert HangUp() in bench.take_orders()


def test_a_first_message_without_a_node_ends_the_session() -> None:
    bench = Bench()
    bench.client.login(NODE, bench.now, auth_key="x")
    bench.open()
    bench.answer(bench.request("/machine/register"), {"MachineAuthorized": True})
    stream = bench.request("/machine/map", Stream=True)
    bench.begin_stream(stream)
    bench.send_map(stream, {"Domain": "x"})
    assert "does not hold this node" in bench.take(Trouble).message
    assert bench.client.state is ControlState.WAITING


def test_a_new_stream_starts_the_netmap_afresh_and_tells_the_difference() -> None:
    bench = Bench()
    stream = bench.registered()
    bench.send_map(stream, {"Peers": [{"ID": 2, "Name": "a."}, {"ID": 3, "Name": "b."}]})
    bench.client.handle_failed("gone", bench.now)
    bench.until_timeout()
    bench.open()
    again = bench.request("/machine/map", Stream=True)
    bench.begin_stream(again)
    bench.events.clear()
    bench.send_map(again, {"Node": {"ID": 1}, "Peers": [{"ID": 3, "Name": "b."}, {"ID": 4, "Name": "c."}]})
    assert bench.take(Trouble).message == "", "all is well again"
    change = bench.take(NetmapChanged).change
    assert change.upserted == {4}
    assert [node.id for node in change.removed] == [2]


def test_waits_grow_with_each_failure_and_never_pass_thirty_seconds() -> None:
    bench = Bench(key=NODE)
    bench.client.connect(bench.now)
    waits = []
    for _ in range(12):
        bench.take_orders()
        bench.client.handle_failed("refused", bench.now)
        waits.append(bench.until_timeout())
    assert waits[0] <= 0.5
    assert all(15 <= wait <= 30 for wait in waits[-4:])
    assert len({trouble.message for trouble in bench.heard(Trouble)}) == 1


def test_a_server_that_never_answers_is_given_up_and_tried_again() -> None:
    bench = Bench(key=NODE)
    bench.client.connect(bench.now)
    bench.until_timeout()
    assert "does not answer" in bench.take(Trouble).message


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"not found"), (200, b"<html>"), (200, b"{}"), (200, b'{"publicKey": "mkey:zz"}'), (200, b"[]")],
)
def test_something_else_behind_the_url_ends_a_login_with_a_sentence(status: int, body: bytes) -> None:
    bench = Bench()
    bench.client.login(NODE, bench.now, auth_key="x")
    bench.take_orders()
    bench.client.handle_key(status, body, bench.now)
    assert bench.take(LoginFailed).message.startswith("http://control.test:8080 is not a control server: ")
    assert bench.client.state is ControlState.OFF


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\n\r\nnothing here",
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"x" * 20000,
    ],
)
def test_a_wrong_answer_to_the_upgrade_ends_the_connection(answer: bytes) -> None:
    bench = Bench(key=NODE)
    bench.client.connect(bench.now)
    bench.pump()
    bench.client.handle_key(200, b'{"publicKey": "mkey:' + b"11" * 32 + b'"}', bench.now)
    bench.client.handle_connected(bench.now)
    while bench.client.poll_transmit() is not None:
        pass
    bench.client.handle_bytes(answer, bench.now, 0.0)
    assert bench.take(Trouble).message
    assert bench.client.state is ControlState.WAITING


def test_a_persons_login_ends_when_the_server_cannot_be_reached_for_a_while() -> None:
    bench = Bench()
    bench.client.login(NODE, bench.now, auth_key="x")
    bench.take_orders()
    bench.client.handle_failed("connection refused", bench.now)
    assert bench.heard(LoginFailed) == []
    while not bench.heard(LoginFailed):
        bench.until_timeout()
        bench.take_orders()
        bench.client.handle_failed("connection refused", bench.now)
    assert bench.now <= 1000 + 60
    assert bench.take(LoginFailed).message == (
        "The control server http://control.test:8080 cannot be reached: connection refused."
    )
    assert bench.client.next_timeout() is None


@pytest.mark.parametrize("body", [b"<html>a captive portal</html>", b"{}"])
def test_a_node_that_was_in_before_never_gives_up(body: bytes) -> None:
    bench = Bench(key=NODE)
    bench.client.connect(bench.now)
    bench.take_orders()
    bench.client.handle_key(200, body, bench.now)
    assert bench.heard(LoginFailed) == []
    bench.until_timeout()
    bench.open()
    bench.answer(bench.request("/machine/register"), {"Error": "not now"})
    assert bench.heard(LoginFailed) == []
    bench.until_timeout()
    bench.open()
    bench.request("/machine/register")


def test_a_stranger_ends_a_persons_login_at_once() -> None:
    bench = Bench()
    bench.client.login(NODE, bench.now)
    bench.take_orders()
    bench.client.handle_stranger("its certificate is not trusted", bench.now)
    assert "its certificate is not trusted" in bench.take(LoginFailed).message


def test_reconnect_drops_the_connection_and_dials() -> None:
    bench = Bench()
    bench.registered()
    bench.take_orders()
    bench.client.reconnect(bench.now)
    assert [type(order) for order in bench.take_orders()] == [HangUp, Dial]


def test_logout_expires_the_key_and_ends_the_connection() -> None:
    bench = Bench()
    bench.registered()
    bench.client.logout(bench.now)
    request = bench.request("/machine/register", Expiry="1970-01-01T00:02:03Z")
    bench.answer(request)
    assert bench.take(LoggedOut).error == ""
    assert bench.client.key is None
    assert bench.client.netmap is None
    assert bench.client.state is ControlState.OFF


def test_logout_without_a_server_ends_all_the_same() -> None:
    bench = Bench(key=NODE)
    bench.client.logout(bench.now)
    for _ in range(20):
        if bench.heard(LoggedOut):
            break
        bench.client.handle_failed("refused", bench.now)
        bench.until_timeout()
    assert bench.take(LoggedOut).error


def test_a_ping_is_told_once_and_answered_in_the_session() -> None:
    bench = Bench()
    stream = bench.registered()
    ping = {"KeepAlive": True, "PingRequest": {"URL": "https://unused/machine/ping/1?x=y", "URLIsNoise": True}}
    bench.send_map(stream, ping)
    bench.send_map(stream, ping)
    assert len(bench.heard(PingAsked)) == 1
    assert bench.client.request_ping_answer(PingRequest(url="https://unused/machine/ping/1?x=y"), b"", bench.now)
    bench.pump()
    assert [(r.method, r.path) for r in bench.requests if "ping" in r.path] == [("HEAD", "/machine/ping/1?x=y")]


@pytest.mark.parametrize("url", ["", "https://unused", "https://unused/a b", "https://unused/\0", "https://unused/é"])
def test_a_ping_whose_path_is_none_is_not_answered_and_costs_nothing(url: str) -> None:
    bench = Bench()
    bench.registered()
    with pytest.raises(WireError, match="a path that is none"):
        bench.client.request_ping_answer(PingRequest(url=url), b"", bench.now)
    assert bench.client.state is ControlState.CONNECTED


def test_a_page_the_server_wants_shown_is_told() -> None:
    bench = Bench()
    stream = bench.registered()
    bench.send_map(stream, {"PopBrowserURL": "https://control.test/news"})
    assert bench.take(BrowserURL).url == "https://control.test/news"


def test_the_servers_clock_is_taken_from_control_time() -> None:
    bench = Bench()
    stream = bench.registered()
    bench.send_map(stream, {"ControlTime": "2027-01-15T08:01:40.5Z"})
    assert bench.client.clock_offset_s == pytest.approx(100.5)
    bench.send_map(stream, {"ControlTime": "yesterday"})
    assert bench.client.clock_offset_s == pytest.approx(100.5)


def test_disconnect_and_connect_go_down_and_up_again() -> None:
    bench = Bench()
    bench.registered()
    bench.client.disconnect(bench.now)
    assert HangUp() in bench.take_orders()
    assert bench.client.next_timeout() is None
    bench.client.connect(bench.now)
    assert [type(order) for order in bench.take_orders()] == [Dial]


@pytest.mark.slow
def test_a_netmap_of_many_megabytes_comes_through() -> None:
    bench = Bench()
    stream = bench.registered()
    dice = random.Random(3)  # so that zstd cannot make it small
    peers = [{"ID": 10 + n, "Key": "nodekey:" + dice.randbytes(32).hex(), "Name": f"p{n}."} for n in range(9000)]
    for _ in range(12):
        bench.send_map(stream, {"Peers": peers})
    assert bench.client.netmap is not None
    assert len(bench.client.netmap.peers) == 9000


@settings(max_examples=150, deadline=None)
@given(junk=st.lists(st.binary(max_size=200), max_size=8), stage=st.integers(0, 3))
def test_junk_from_a_server_ends_a_session_and_nothing_else(junk: list[bytes], stage: int) -> None:
    bench = Bench(key=NODE)
    if stage == 3:
        bench = Bench()
        bench.registered()
    elif stage == 2:
        bench.client.connect(bench.now)
        bench.open()
    else:
        bench.client.connect(bench.now)
        bench.take_orders()
        bench.client.handle_key(200, KEY_JSON, bench.now)
        bench.client.handle_connected(bench.now)
        while bench.client.poll_transmit() is not None:
            pass
        if stage == 1:
            bench.client.handle_bytes(UPGRADED, bench.now, 0.0)
    for data in junk:
        bench.client.handle_bytes(data, bench.now, 0.0)
    while bench.client.poll_transmit() is not None:
        pass
    assert bench.client.state in (ControlState.CONNECTING, ControlState.CONNECTED, ControlState.WAITING)
    bench.client.handle_failed("gone", bench.now)
    assert bench.client.state is ControlState.WAITING
    assert bench.client.next_timeout() is not None


@settings(max_examples=100, deadline=None)
@given(junk=st.binary(max_size=300), framed=st.booleans())
def test_junk_in_the_map_stream_ends_the_session_with_a_sentence(junk: bytes, framed: bool) -> None:
    bench = Bench()
    stream = bench.registered()
    assert bench.h2 is not None
    bench.h2.send_data(stream.stream, len(junk).to_bytes(4, "little") + junk if framed else junk)
    bench.client.handle_bytes(bench.h2.data_to_send(), bench.now, 0.0)
    bench.pump()
    assert bench.client.state in (ControlState.CONNECTED, ControlState.WAITING)


@pytest.mark.parametrize("status", ["", "ok", "99999", "٢٠٠"])
def test_a_status_that_is_none_ends_the_session_with_a_sentence(status: str) -> None:
    bench = Bench(key=NODE)
    bench.client.connect(bench.now)
    bench.open()
    request = bench.request("/machine/register")
    assert bench.h2 is not None
    bench.h2.config.validate_outbound_headers = False
    bench.h2.send_headers(request.stream, [(":status", status)])
    bench._flush()
    assert bench.client.state is ControlState.WAITING
