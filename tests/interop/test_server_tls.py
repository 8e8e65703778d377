"""`buri server` at an https URL: control and relay behind one certificate, and what is told to those who come plain."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import trustme

from buri.relay.identity import make_self_signed
from buri.testing.lab import PRIVATE_SERVER, Host, Lab
from buri.testing.ourpeers import Burid, BuriServer
from buri.testing.realpeers import Tailscaled, direct_line
from buri.testing.traffic import block_udp, send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.engine, pytest.mark.slow]

NAME = "vpn.example.org"
URL = f"https://{NAME}"
ASK = """
import http.client, ssl, sys
host, port, tls, path = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "tls", sys.argv[4]
context = ssl.create_default_context() if tls else None
c = http.client.HTTPSConnection(host, port, context=context) if tls else http.client.HTTPConnection(host, port)
c.request("GET", path)
r = c.getresponse()
print(r.status, r.getheader("Location", ""), r.read().decode())
"""


def trust(host: Host, root: bytes) -> None:
    """Make a host know the server's name and believe who signed its certificate, as an administrator would."""
    host.run("sh", "-c", f"echo {PRIVATE_SERVER} {NAME} >> /etc/hosts")
    host.run("sh", "-c", "cat >> /etc/ssl/certs/ca-certificates.crt", stdin=root.decode())


def ask(host: Host, port: int, how: str, path: str) -> str:
    return host.run(sys.executable, "-c", ASK, NAME, str(port), how, path).stdout


def by_authority() -> tuple[bytes, bytes, bytes]:
    """A root, a chain that it issued, and the key."""
    authority = trustme.CA()
    issued = authority.issue_cert(NAME)
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    return authority.cert_pem.bytes(), chain, issued.private_key_pem.bytes()


def self_signed() -> tuple[bytes, bytes, bytes]:
    """As `openssl req -x509` makes it: it says of itself that it is an authority."""
    chain, key = make_self_signed([NAME], authority=True)
    return chain, chain, key


@pytest.mark.parametrize("make", [by_authority, self_signed])
def test_nodes_join_by_tls_and_meet_by_the_relay_behind_the_same_certificate(
    lab: Lab, make: Callable[[], tuple[bytes, bytes, bytes]]
) -> None:
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    root, chain, private = make()
    files = (host.directory / "chain.pem", host.directory / "key.pem")
    files[0].write_bytes(chain)
    files[1].write_bytes(private)
    server = BuriServer(
        host, "--listen=0.0.0.0:443", f"--url={URL}", f"--tls-cert={files[0]}", f"--tls-key={files[1]}", url=URL
    )
    homes = (lab.home("tokyo", server=host), lab.home("osaka", server=host))
    hosts = lab.home_host(homes[0], "alice"), lab.home_host(homes[1], "bob")
    for one in hosts:
        trust(one, root)
    assert ask(hosts[0], 443, "tls", "/health").startswith("200  {")
    assert ask(hosts[0], 443, "plain", "/key?v=130").startswith("200  {")
    assert ask(hosts[0], 443, "plain", "/register/x?y").startswith(f"301 {URL}/register/x?y ")
    block_udp(homes, on=True)
    alice, bob = Burid(hosts[0]), Tailscaled(hosts[1])
    auth_key = server.auth_key()
    for node in (alice, bob):
        node.up(URL, auth_key)
    lines = alice.ping(bob.address(), until_direct=False, count=3)
    assert any("via DERP(buri)" in line for line in lines), lines
    sink = start_sink(bob.host, bob.address(), 7000)
    send_checked(alice.host, bob.address(), 7000, 1 << 20)
    sink.stop()
    block_udp(homes, on=False)
    assert direct_line(alice.ping(bob.address(), count=20))
    server.process.kill()
    server.start()
    assert direct_line(bob.ping(alice.address(), count=20))
