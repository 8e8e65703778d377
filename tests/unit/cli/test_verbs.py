"""The verbs against a real LocalAPI server with a fake node behind it, called as a person calls them."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from buri.cli import ping as ping_verb
from buri.cli.main import VERBS, main
from buri.node.localapi import server
from buri.testing.fakenode import LOGIN_URL, WRONG_KEY, Served, serve
from buri.wire.localapi import BackendState, Notify, PingResult

SERVER = "--login-server=https://buri.example.com"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(ping_verb, "BETWEEN_S", 0.0)
    monkeypatch.delenv("SUDO_USER", raising=False)

    def call(*words: str) -> tuple[int, str, str]:
        code = main([f"--socket={tmp_path / 's'}", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "s", running=True) as served:
        yield served


@pytest.fixture
def logged_out(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "s") as served:
        yield served


def test_status_shows_the_table(run: Run, running: Served) -> None:
    assert run("status") == (
        0,
        "100.64.0.1  tokyo  alice@  linux  -\n"
        '100.64.0.2  osaka  alice@  linux  active; relay "lab" (peer behind hard NAT), tx 1234 rx 5678\n'
        "\n# Key expiry: never\n",
        "",
    )
    assert run("status", "--peers=false")[1].count("\n") == 3
    assert run("status", "--self=false")[1].count("\n") == 1


def test_status_in_json_is_the_daemons_own(run: Run, running: Served) -> None:
    code, out, _ = run("status", "--json", "--active")
    assert code == 0
    assert [peer["HostName"] for peer in json.loads(out)["Peer"].values()] == ["osaka"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (BackendState.STOPPED, "Buri is stopped."),
        (BackendState.NEEDS_LOGIN, "Logged out."),
        (BackendState.NEEDS_MACHINE_AUTH, "Machine is not yet approved by tailnet admin."),
    ],
)
def test_status_of_a_node_that_does_not_run_says_why(
    run: Run, running: Served, state: BackendState, words: str
) -> None:
    running.node.state = state
    code, out, _ = run("status")
    assert (code, out.splitlines()[0]) == (1, words)


def test_without_a_daemon_one_sentence_says_what_to_type(run: Run) -> None:
    code, out, err = run("status")
    assert (code, out) == (1, "")
    assert "burid is not running" in err
    assert "Start it with `sudo " in err
    assert err.count("\n") == 1


def test_something_else_on_the_socket_is_told_apart(run: Run, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-what\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        code, _, err = run("ip")
        thread.join()
    assert code == 1
    assert "no burid" in err


def test_ping_goes_from_the_relay_to_direct_and_stops(run: Run, running: Served) -> None:
    running.node.pings += [
        PingResult(
            node_ip="100.64.0.2", node_name="osaka", derp_region_id=9, derp_region_code="lab", latency_seconds=0.039
        ),
        PingResult(node_ip="100.64.0.2", node_name="osaka", endpoint="1.2.3.4:41641", latency_seconds=0.002),
    ]
    assert run("ping", "--verbose", "osaka") == (
        0,
        "pong from osaka (100.64.0.2) via DERP(lab) in 39ms\npong from osaka (100.64.0.2) via 1.2.3.4:41641 in 2ms\n",
        'lookup "osaka" => "100.64.0.2"\n',
    )


def test_ping_that_stays_on_the_relay_ends_with_an_error(run: Run, running: Served) -> None:
    running.node.pings += [PingResult(node_ip="100.64.0.2", derp_region_id=9, derp_region_code="lab")]
    code, out, err = run("ping", "-c=2", "100.64.0.2")
    assert (code, out.count("via DERP(lab)"), err) == (1, 2, "buri: direct connection not established\n")
    assert run("ping", "-c=2", "--until-direct=false", "100.64.0.2")[0] == 0


def test_ping_without_an_answer(run: Run, running: Served) -> None:
    code, out, err = run("ping", "-c", "1", "--timeout=20ms", "osaka")
    assert (code, out, err) == (1, 'ping "100.64.0.2" timed out\n', "buri: no reply\n")
    running.node.pings.append(PingResult(err="the peer is not connected to its relay", lost=True))
    code, out, err = run("ping", "-c", "2", "osaka")
    assert out == 2 * 'ping "100.64.0.2" timed out: the peer is not connected to its relay\n'
    assert (code, err) == (1, "buri: no reply\n")


def test_ping_of_oneself_and_of_nobody(run: Run, running: Served) -> None:
    assert run("ping", "tokyo")[:2] == (0, "100.64.0.1 is local Tailscale IP\n")
    assert run("ping", "100.64.0.1")[:2] == (0, "100.64.0.1 is local Tailscale IP\n")
    running.node.pings += [PingResult(err="no matching peer")]
    assert run("ping", "100.64.0.77") == (1, "", "buri: no matching peer\n")


def test_ip_chooses_addresses(run: Run, running: Served) -> None:
    assert run("ip")[1].split() == ["100.64.0.1", "fd7a:115c:a1e0::1"]
    assert run("ip", "-1")[1].split() == ["100.64.0.1"]
    assert run("ip", "-6", "osaka.tail.example")[1].split() == ["fd7a:115c:a1e0::2"]
    assert run("ip", "-4", "-6")[0] == 2
    assert run("ip", "--assert=100.64.0.9")[0] == 1
    assert run("ip", "100.64.0.77")[2] == "buri: no peer found with IP 100.64.0.77\n"


def test_set_get_down_and_a_bare_up(run: Run, running: Served) -> None:
    assert run("set", "--hostname=kyoto", "--accept-routes") == (0, "", "")
    assert run("get", "hostname")[1] == "kyoto\n"
    assert json.loads(run("get", "--json")[1])["accept-routes"] is True
    assert run("set")[0] == 2
    assert run("down") == (0, "", "")
    assert run("down") == (0, "", "Buri was already stopped.\n")
    assert run("up", "--timeout=10s") == (0, "", "")
    assert running.node.state is BackendState.RUNNING


def test_up_that_forgets_a_setting_is_refused(run: Run, running: Served) -> None:
    run("set", "--hostname=kyoto")
    code, _, err = run("up", "--accept-routes")
    assert code == 2
    assert "\tburi up --accept-routes --hostname=kyoto\n" in err
    assert not running.node.current.route_all


def test_up_with_an_auth_key_out_of_a_file(run: Run, logged_out: Served, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("good-key\n")
    assert run("up", SERVER, f"--auth-key=file:{tmp_path / 'key'}", "--timeout=10s") == (0, "", "")
    assert "start good-key" in logged_out.node.asked
    assert run("up", SERVER, "--auth-key=file:/no/such")[0] == 2


def test_up_with_a_refused_key_says_why(run: Run, logged_out: Served) -> None:
    code, out, err = run("up", SERVER, f"--auth-key={WRONG_KEY}", "--timeout=10s")
    assert (code, out, err) == (1, "", "buri: The control server refused the auth key: it is not known.\n")


@pytest.mark.parametrize("verb", ["up", "login"])
def test_a_login_page_is_shown_until_a_person_said_yes(run: Run, logged_out: Served, verb: str) -> None:
    approve_once_asked(logged_out)
    code, out, err = run(verb, SERVER, "--qr", "--timeout=10s")
    assert (code, out) == (0, "")
    assert f"To authenticate, visit:\n\n\t{LOGIN_URL}\n" in err
    assert "█" in err
    assert err.endswith("Success.\n")


def test_up_tells_progress_in_json(run: Run, logged_out: Served) -> None:
    approve_once_asked(logged_out)
    _, out, _ = run("up", SERVER, "--json", "--timeout=10s")
    first, last = (json.loads(text) for text in out.replace("}\n{", "}\0{").split("\0"))
    assert first["AuthURL"] == LOGIN_URL
    assert first["QR"].startswith("data:image/png;base64,")
    assert last == {"BackendState": "Running"}


def test_up_gives_up_in_time(run: Run, logged_out: Served) -> None:
    logged_out.node.health = ["The control server cannot be reached."]
    assert run("up", SERVER, "--timeout=50ms")[2].splitlines()[-1] == (
        "buri: timeout waiting for Buri to enter a Running state; it is NeedsLogin. The control server cannot be reached."
    )


def test_up_asks_for_an_administrator_where_one_must_approve(run: Run, logged_out: Served) -> None:
    tell_once_asked(logged_out, Notify(state=BackendState.NEEDS_MACHINE_AUTH), Notify(state=BackendState.RUNNING))
    code, _, err = run("up", SERVER, "--timeout=10s")
    assert code == 0
    assert "To approve your machine, visit (as admin):\n\n\thttps://buri.example.com\n" in err


def test_the_daemons_refusal_ends_with_its_exit_code(run: Run, logged_out: Served) -> None:
    code, _, err = run("logout")
    assert (code, err) == (1, "buri: This node is not logged in.\n")


def test_netcheck_whois_version_and_debug(run: Run, running: Served) -> None:
    assert "Nearest DERP: Lab" in run("netcheck")[1]
    assert json.loads(run("netcheck", "--format=json-line")[1])["PreferredDERP"] == 9
    assert "alice@example.com" in run("whois", "100.64.0.2")[1]
    assert json.loads(run("whois", "--json", "100.64.0.2")[1])["Node"]["StableID"] == "n2"
    assert run("whois", "100.64.0.9") == (1, "", "buri: no match for IP:port\n")
    assert "Daemon: 0.1.0-fake" in run("version", "--daemon")[1]
    assert json.loads(run("debug", "watch-ipn", "--count=1")[1])["State"] == 6
    assert json.loads(run("debug", "localapi", "GET", "derpmap")[1])["Regions"]["9"]
    assert run("debug", "restun")[:2] == (0, "done\n")


def test_wait_returns_once_the_node_runs_and_gives_up_in_time(run: Run, logged_out: Served) -> None:
    assert run("wait", "--timeout=50ms")[0] == 1
    logged_out.node.state = BackendState.STARTING
    code, _, err = run("wait", "--timeout=50ms")
    assert (code, "could not be used" in err) == (1, True)


@pytest.mark.parametrize(
    "verb", [verb for verb in VERBS if verb not in ("daemon", "debug", "server", "admin", "relay")]
)
def test_every_verb_explains_itself_with_an_example(run: Run, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert "Example:" in out


def test_a_slip_is_told_with_the_verb_that_was_meant(run: Run) -> None:
    code, _, err = run("statsu")
    assert code == 2
    assert "There is no 'statsu'. Did you mean 'status'?" in err


def test_a_user_without_rights_is_told_how_to_get_them(
    run: Run, logged_out: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "peer_uid", lambda _: 54321 if os.geteuid() != 54321 else 54322)
    code, _, err = run("up", SERVER)
    assert code == 4
    assert "sudo buri set --operator=$USER" in err
    assert run("get", "hostname")[0] == 0
    assert not [asked for asked in logged_out.node.asked if asked.startswith("start")]


def test_the_first_sudo_buri_up_makes_its_caller_the_operator(
    run: Run, logged_out: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("buri.node.localapi.server.peer_uid", lambda _: 0)  # whoever runs the tests
    monkeypatch.setenv("SUDO_USER", "alice")
    assert run("up", SERVER, "--auth-key=good-key", "--timeout=10s")[0] == 0
    assert logged_out.node.current.operator_user == "alice"
    monkeypatch.setenv("SUDO_USER", "bob")
    assert run("up", "--hostname=kyoto")[0] == 0
    assert logged_out.node.current.operator_user == "alice"


def test_completion_scripts_name_the_program(run: Run) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_BURI_COMPLETE" in run("completion", shell)[1]


def approve_once_asked(served: Served) -> None:
    """Say yes as soon as the login page was asked for."""
    ask = served.node.login_interactive

    async def asked() -> None:
        await ask()
        served.node.approve()

    served.node.login_interactive = asked  # type: ignore[method-assign] # a person, as it were


def tell_once_asked(served: Served, *notices: Notify) -> None:
    """Say these on the bus when the login page is asked for."""

    async def asked() -> None:
        for notice in notices:
            served.node.tell(notice)

    served.node.login_interactive = asked  # type: ignore[method-assign] # the server's own will, as it were
