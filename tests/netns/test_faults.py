"""What goes wrong in the first hour: each time one clear sentence, the right exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from buri.testing.lab import PRIVATE_SERVER, Host, Lab, in_user_namespace, wait_until
from buri.testing.ourpeers import ENVIRONMENT, PROGRAMS, Burid, BuriServer
from buri.testing.realpeers import direct_line

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

USUAL, CONFIG, SYSTEM, RIGHTS, IN_USE = 1, 2, 3, 4, 5  # core.errors' exit codes
URL = f"http://{PRIVATE_SERVER}:8080"
SERVER = ("--listen=0.0.0.0:8080", f"--url={URL}")
WEB = """
import http.server, ssl, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/" else 404); self.end_headers(); self.wfile.write(b"<h1>a shop</h1>")
server = http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Page)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[3], sys.argv[4])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True); server.serve_forever()
"""
TAKE = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
taken = [socket.socket(family, kind) for family in (socket.AF_INET, socket.AF_INET6)]
taken[1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
for one, address in zip(taken, ("0.0.0.0", "::")):
    one.bind((address, int(sys.argv[2])))
    if kind == socket.SOCK_STREAM: one.listen()
print("ready", flush=True); import signal; signal.pause()
"""


def traces(host: Host) -> list[str]:
    """What burid puts into a system: its interface, its rules, its routes."""
    links = [link["ifname"] for link in json.loads(host.run("ip", "-j", "link").stdout)]
    found = [name for name in links if name.startswith("buri")]
    for family in ("-4", "-6"):
        rules = host.run("ip", family, "rule").stdout.splitlines()
        found += [rule for rule in rules if rule.startswith(("528", "529"))]
        found += host.run("ip", family, "route", "show", "table", "5282", check=False).stdout.splitlines()
    return found


def sentence(output: str, program: str) -> str:
    """The one sentence that a program ended with; its log's lines are no part of it."""
    assert "Traceback" not in output, output
    said = [line for line in output.splitlines() if line.startswith(f"{program}: ")]
    assert len(said) == 1, output
    return said[0].removeprefix(f"{program}: ")


def take(host: Host, kind: str, port: int) -> None:
    host.start(f"take-{kind}-{port}", sys.executable, "-c", TAKE, kind, str(port)).expect("ready")


def kept(directory: Path) -> dict[str, bytes]:
    """A state directory's files that matter."""
    return (
        {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()} if directory.exists() else {}
    )


@contextmanager
def served(lab: Lab, *names: str) -> Iterator[tuple[BuriServer, list[Burid], str]]:
    """A server, nodes in a home of their own each (not logged in), and a reusable auth key."""
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    server = BuriServer(host)
    nodes = [Burid(lab.home_host(lab.home(f"{name}-home", server=host), name)) for name in names]
    yield server, nodes, server.auth_key()


# ---- joining --------------------------------------------------------------------------------------------------------


def test_auth_keys_that_do_not_serve_change_nothing_and_a_good_one_still_does(lab: Lab) -> None:
    with served(lab, "alice", "bob") as (server, (alice, bob), good):
        once, short = server.auth_key("--expiration=1h"), server.auth_key("--expiration=1s")
        wait_until("the short key to expire", lambda: "expired" in server.admin("preauthkeys", "list"))
        bob.up(URL, once)
        for key, word in (
            (once, "already used"),
            (short, "expired"),
            ("tskey-auth-wrong", "not valid"),
            ("x", "not valid"),
        ):
            code, said = alice.code("up", f"--login-server={URL}", f"--auth-key={key}", "--timeout=20s")
            assert code == USUAL, said
            assert word in sentence(said, "buri")
            assert traces(alice.host) == ["buri0"], "burid's own interface alone, down"
            assert alice.status()["BackendState"] == "NeedsLogin"
        assert [node["name"] for node in server.nodes()] == ["bob"]
        alice.up(URL, good)
        assert direct_line(alice.ping(bob.address()))


def test_a_server_that_is_none_is_named_and_a_right_one_still_serves(lab: Lab) -> None:
    from buri.relay.identity import make_self_signed

    with served(lab, "alice") as (server, (alice,), good):
        web = server.host
        chain, key = make_self_signed([PRIVATE_SERVER], authority=True)
        (web.directory / "web.crt").write_bytes(chain)
        (web.directory / "web.key").write_bytes(key)
        web.start("web", sys.executable, "-c", WEB, "0.0.0.0", "80").expect("ready")
        files = (str(web.directory / "web.crt"), str(web.directory / "web.key"))
        web.start("webs", sys.executable, "-c", WEB, "0.0.0.0", "443", *files).expect("ready")
        for url, wanted, words in (
            (f"http://{PRIVATE_SERVER}", USUAL, "is not a control server"),
            (f"http://{PRIVATE_SERVER}:1", USUAL, "cannot be reached: connection refused"),
            (f"https://{PRIVATE_SERVER}", USUAL, "its certificate is not trusted"),
            (f"{URL}/somewhere", CONFIG, "is not a control server's URL"),
            ("nonsense", CONFIG, "is not the URL of a control server"),
        ):
            code, said = alice.code("up", f"--login-server={url}", f"--auth-key={good}", "--timeout=6s")
            assert (code, words in sentence(said, "buri")) == (wanted, True), said
            assert traces(alice.host) == ["buri0"]
        alice.up(URL, good, "--reset")
        assert alice.status()["BackendState"] == "Running"


# ---- starting burid -------------------------------------------------------------------------------------------------


def run_burid(host: Host, *flags: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run a burid that is to end by itself."""
    words = [
        *before,
        *PROGRAMS["burid"],
        f"--statedir={host.directory}/buri",
        f"--socket={host.directory}/b.sock",
        *flags,
    ]
    done = host.run(*words, check=False, env=ENVIRONMENT)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(in_user_namespace(), reason="a user namespace has one user id: there is no other to drop to")
def test_burid_without_the_right_to_a_tunnel_says_so_and_leaves_nothing(lab: Lab) -> None:
    host = lab.public_host("alice", number=2)
    mine = host.directory / "mine"
    mine.mkdir(mode=0o700)
    os.chown(mine, 65534, 65534)
    before: tuple[str, ...] = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all")
    readable = host.run(*before, "test", "-r", str(Path(sys.executable)), check=False).returncode == 0
    if not readable:
        before = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    guarded = (
        "mount -t tmpfs none /dev/net && mknod /dev/net/tun c 10 200 && chown 1 /dev/net/tun && chmod 600 /dev/net/tun"
        ' && exec "$@"'
    )
    for where, how in (
        (mine, before),
        (host.directory, before),
        (mine, ("unshare", "--mount", "sh", "-c", guarded, "sh", *before)),
    ):
        code, said = run_burid(host, f"--statedir={where}/state", f"--socket={where}/b.sock", before=how)
        assert code == RIGHTS, said
        assert "root" in sentence(said, "burid")
        assert not traces(host)
        assert not (where / "b.sock").exists()


def test_burid_without_a_tunnel_device_or_in_userspace_mode_says_what_to_do(lab: Lab) -> None:
    host = lab.public_host("alice", number=2)
    code, said = run_burid(host, "--tun=userspace-networking")
    assert (code, "no userspace networking" in sentence(said, "burid")) == (CONFIG, True)
    assert not (host.directory / "buri").exists()
    hidden = ("sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh")
    code, said = run_burid(host, before=("unshare", "--mount", *hidden))
    assert (code, "no TUN device (/dev/net/tun)" in sentence(said, "burid")) == (SYSTEM, True), said
    assert not traces(host)
    assert not (host.directory / "b.sock").exists()


def test_a_second_burid_leaves_the_first_alone_and_a_taken_port_is_passed_by(lab: Lab) -> None:
    with served(lab, "alice") as (_, (alice,), key):
        alice.up(URL, key)
        before, there = kept(alice.state)["burid.state"], traces(alice.host)
        code, said = run_burid(alice.host, f"--socket={alice.socket}", "--tun=buri1")
        assert (code, "Another burid is running on" in sentence(said, "burid")) == (IN_USE, True), said
        code, said = run_burid(alice.host, "--tun=buri0")
        assert (code, "buri0" in sentence(said, "burid")) == (IN_USE, True), said
        code, said = run_burid(alice.host, "--cleanup")
        assert (code, "is running here" in sentence(said, "burid")) == (IN_USE, True), said
        assert (kept(alice.state)["burid.state"], traces(alice.host)) == (before, there)
        assert alice.status()["BackendState"] == "Running"
        alice.process.stop()
        assert not traces(alice.host)
        take(alice.host, "udp", 41641)
        alice.start()
        wait_until("Running", lambda: alice.status()["BackendState"] == "Running")
        endpoints = alice.status()["Self"]["Addrs"]
        assert not [text for text in endpoints if text.startswith("192.168.") and text.endswith(":41641")], endpoints
        assert [text for text in endpoints if text.startswith("192.168.")], endpoints


def test_a_state_file_that_is_damaged_or_cannot_be_written_is_named(lab: Lab) -> None:
    host = lab.public_host("alice", number=2)
    state = host.directory / "buri"
    state.mkdir()
    (state / "burid.state").write_text('{"format": 99}')
    code, said = run_burid(host)
    assert (code, str(state) in sentence(said, "burid")) == (CONFIG, True), said
    assert (state / "burid.state").read_text() == '{"format": 99}'
    (state / "burid.state").unlink()
    read_only = (
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'mount --bind {state} {state} && mount -o remount,bind,ro {state} && exec "$@"',
        "sh",
    )
    code, said = run_burid(host, before=read_only)
    assert (code, str(state) in sentence(said, "burid")) == (SYSTEM, True), said
    assert not traces(host)


def test_a_socket_that_cannot_be_made_is_named_and_a_dead_one_replaced(lab: Lab) -> None:
    host = lab.public_host("alice", number=2)
    file = host.directory / "file"
    file.write_text("")
    for path in (f"/run/{'long' * 40}/b.sock", f"{file}/b.sock", "/proc/none/b.sock"):
        code, said = run_burid(host, f"--socket={path}")
        assert (code, path in sentence(said, "burid")) == (SYSTEM, True), said
    assert not (host.directory / "buri").exists()
    alice = Burid(host)
    alice.process.kill()
    assert alice.socket.exists()
    run = host.start(
        "again", *PROGRAMS["burid"], f"--statedir={alice.state}", f"--socket={alice.socket}", env=ENVIRONMENT
    )
    run.expect("Ready")
    assert alice.status()["BackendState"] == "NeedsLogin"


# ---- starting the server --------------------------------------------------------------------------------------------


def run_server(host: Host, *flags: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run a server that is to end by itself."""
    words = [*before, *PROGRAMS["buri"], "server", *flags]
    done = host.run(*words, check=False, env=ENVIRONMENT, timeout_s=30)
    return done.returncode, done.stdout + done.stderr


def test_a_server_s_port_or_state_directory_in_use_leaves_the_first_one_alone(lab: Lab) -> None:
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    server = BuriServer(host)
    other = host.directory / "other"
    code, said = run_server(
        host,
        f"--state-dir={server.state}",
        "--listen=0.0.0.0:8081",
        f"--url=http://{PRIVATE_SERVER}:8081",
        "--stun=0.0.0.0:3500",
    )
    assert (code, "Another buri server uses the state directory" in sentence(said, "buri server")) == (IN_USE, True), (
        said
    )
    for flags in (SERVER, (*SERVER, "--no-relay", f"--derp-map={map_file(host)}")):
        code, said = run_server(host, f"--state-dir={other}", *flags)
        assert (code, "0.0.0.0:8080" in sentence(said, "buri server")) == (IN_USE, True), said
    code, said = run_server(
        host, f"--state-dir={other}", "--listen=0.0.0.0:8081", f"--url=http://{PRIVATE_SERVER}:8081"
    )
    assert (code, "3478" in sentence(said, "buri server")) == (IN_USE, True), said
    code, said = run_server(
        host,
        f"--state-dir={other}",
        "--listen=192.0.2.1:8081",
        f"--url=http://{PRIVATE_SERVER}:8081",
        "--stun=0.0.0.0:3500",
    )
    assert (code, "192.0.2.1:8081" in sentence(said, "buri server")) == (SYSTEM, True), said
    assert not (other / "front.sock").exists()
    assert server.nodes() == []
    assert server.process.popen.poll() is None


def map_file(host: Host) -> Path:
    path = host.directory / "map.json"
    node = {"Name": "9a", "RegionID": 9, "HostName": "derp.example.org"}
    path.write_text(json.dumps({"Regions": {"9": {"RegionID": 9, "RegionCode": "lab", "Nodes": [node]}}}))
    return path


def test_a_server_that_cannot_be_is_refused_before_it_writes_anything(lab: Lab) -> None:
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    state = host.directory / "state"
    for flags, word in (
        (("--url=http://vpn.example.org",), "plain HTTP"),
        (("--url=https://vpn.example.org",), "needs a certificate"),
        ((*SERVER, "--no-relay"), "Without a relay"),
        ((*SERVER, "--derp-map=/nowhere.json"), "/nowhere.json cannot be read"),
        (
            ("--listen=0.0.0.0:443", "--url=https://vpn.example.org", "--tls-cert=/no.pem", "--tls-key=/no.key"),
            "/no.pem",
        ),
    ):
        code, said = run_server(host, f"--state-dir={state}", *flags)
        assert (code, word in sentence(said, "buri server")) == (CONFIG, True), said
        assert not [name for name in kept(state) if name.endswith((".db", ".sqlite", ".key"))], kept(state).keys()
    code, said = run_server(
        host,
        "--listen=0.0.0.0:443",
        "--tls-cert=/etc/passwd",
        "--tls-key=/etc/passwd",
        f"--url=https://{PRIVATE_SERVER}",
        f"--state-dir={state}",
    )
    assert (code, "ertificate" in sentence(said, "buri server")) == (CONFIG, True), said


def test_a_state_directory_that_is_read_only_or_another_s_is_named(lab: Lab) -> None:
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    server = BuriServer(host)
    server.process.stop()
    before = kept(server.state)
    read_only = (
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'mount --bind {server.state} {server.state} && mount -o remount,bind,ro {server.state} && exec "$@"',
        "sh",
    )
    code, said = run_server(host, f"--state-dir={server.state}", *SERVER, before=read_only)
    assert (code, str(server.state) in sentence(said, "buri server")) == (SYSTEM, True), said
    file = host.directory / "file"
    file.write_text("")
    code, said = run_server(host, f"--state-dir={file}", *SERVER)
    assert (code, str(file) in sentence(said, "buri server")) == (SYSTEM, True), said
    assert kept(server.state) == before
    server.start()


# ---- kill -9 and a server that is away ------------------------------------------------------------------------------


def test_kill_9_of_each_and_a_new_start_loses_nothing_and_keeps_addresses(lab: Lab) -> None:
    with served(lab, "alice", "bob") as (server, (alice, bob), key):
        alice.up(URL, key)
        bob.up(URL, key)
        nodes = {node["name"]: node["addresses"][0] for node in server.nodes()}
        assert direct_line(alice.ping(bob.address()))

        server.process.kill()
        alice.host.run("ping", "-c2", "-W2", nodes["bob"])  # nobody needs the server to talk
        alice.process.kill()
        alice.start()  # and a node comes up from what it kept
        wait_until(
            "alice's way to bob",
            lambda: alice.host.run("ping", "-c1", "-W1", nodes["bob"], check=False).returncode == 0,
            timeout_s=30,
        )
        assert alice.address() == nodes["alice"]

        server.start()
        wait_until("both back", lambda: all(node["online"] for node in server.nodes()), timeout_s=60)
        assert {node["name"]: node["addresses"][0] for node in server.nodes()} == nodes
        assert direct_line(bob.ping(nodes["alice"]))


def test_what_a_killed_burid_left_goes_with_cleanup_and_with_the_next_start(lab: Lab) -> None:
    with served(lab, "alice") as (_, (alice,), key):
        alice.up(URL, key)
        assert traces(alice.host)
        alice.process.kill()
        assert traces(alice.host), "nothing was left to clean up"
        code, said = run_burid(alice.host, "--cleanup")
        assert (code, "removed" in sentence(said, "burid")) == (0, True), said
        assert not traces(alice.host)
        assert "nothing was left" in sentence(run_burid(alice.host, "--cleanup")[1], "burid")
        alice.start()
        wait_until("Running", lambda: alice.status()["BackendState"] == "Running")
        once = traces(alice.host)
        alice.process.kill()
        alice.start()
        wait_until("Running again", lambda: alice.status()["BackendState"] == "Running")
        assert traces(alice.host) == once
        alice.cli("down")
        alice.process.stop()
        assert not traces(alice.host)


# ---- expiry and logout ----------------------------------------------------------------------------------------------


def test_an_expired_node_says_so_and_a_new_login_keeps_its_address(lab: Lab) -> None:
    with served(lab, "alice", "bob") as (server, (alice, bob), key):
        alice.up(URL, key)
        bob.up(URL, key)
        address = alice.address()
        server.admin("nodes", "expire", "alice")
        wait_until("NeedsLogin", lambda: alice.status()["BackendState"] == "NeedsLogin")
        _, said = alice.code("status")
        assert said == "This node's key has expired.\nLog in again with: buri up\n"
        assert bob.host.run("ping", "-c1", "-W1", address, check=False).returncode != 0
        alice.up(URL, key)
        assert alice.address() == address
        assert direct_line(bob.ping(address))

        alice.cli("logout")
        assert alice.status()["BackendState"] == "NeedsLogin"
        _, said = alice.code("status")
        assert re.search(r"[Ll]ogged out", said), said
        wait_until(
            "bob to see her leave",
            lambda: not bob.status()["Peer"] or not any(peer["Online"] for peer in bob.status()["Peer"].values()),
        )
        assert traces(alice.host) == ["buri0"]


def test_a_node_that_its_server_forgot_says_so_and_joins_anew(lab: Lab) -> None:
    with served(lab, "alice", "bob") as (server, (alice, bob), key):
        alice.up(URL, key)
        server.process.kill()
        shutil.rmtree(server.state)
        server.start()
        wait_until("alice to hear of it", lambda: alice.status()["BackendState"] == "NeedsLogin", timeout_s=60)
        assert re.search(rf"Log in at: {URL}/register/\S+", alice.code("status")[1])
        assert traces(alice.host) == ["buri0"]
        key = server.auth_key()
        alice.up(URL, key)
        bob.up(URL, key)
        assert direct_line(alice.ping(bob.address()))


# ---- full disks -----------------------------------------------------------------------------------------------------


def test_a_full_disk_is_said_by_each_and_harms_nothing(lab: Lab) -> None:
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    state = host.directory / "state"
    state.mkdir()
    host.run("mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(state))
    server = BuriServer(host)
    key = server.auth_key()
    alice_host = lab.home_host(lab.home("tokyo", server=host), "alice")
    kept_in = alice_host.directory / "buri"
    kept_in.mkdir()
    alice_host.run("mount", "-t", "tmpfs", "-o", "size=200k", "none", str(kept_in))
    alice = Burid(alice_host)

    def fill(where: Host, directory: Path) -> None:
        where.run("dd", "if=/dev/zero", f"of={directory}/fill", "bs=1k", "count=4000", check=False)

    alice.process.expect("Ready")  # its keys are on the disk
    fill(alice_host, kept_in)
    code, said = alice.code("up", f"--login-server={URL}", f"--auth-key={key}", "--timeout=8s")
    assert (code, "No space left on device" in sentence(said, "buri")) == (SYSTEM, True), said
    alice_host.run("rm", f"{kept_in}/fill")
    fill(host, state)
    code, said = alice.code("up", f"--login-server={URL}", f"--auth-key={key}", "--timeout=8s", "--reset")
    assert (code, "database or disk is full" in sentence(said, "buri")) == (USUAL, True), said
    assert traces(alice_host) == ["buri0"]
    host.run("rm", f"{state}/fill")
    alice.up(URL, key)
    assert [node["name"] for node in server.nodes()] == ["alice"]
