"""The server's settings: who wins, what follows from what, and every refusal to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from buri.control.config import ServerConfig, ServerFlags, resolve
from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError


def settings(environment: dict[str, str] | None = None, **flags: str | bool) -> ServerConfig:
    return resolve(ServerFlags(**flags), environment or {})  # type: ignore[arg-type]


def refusal(environment: dict[str, str] | None = None, **flags: str | bool) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(environment, **flags)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_without_a_word_it_serves_this_machine_alone() -> None:
    config = settings()
    assert config.state_dir == Path("/var/lib/buri-server")
    assert (config.url, config.host, config.public_port, config.tls) == (
        "http://127.0.0.1:8080",
        "127.0.0.1",
        8080,
        False,
    )
    assert config.stun == AddrPort.parse("127.0.0.1:3478")
    assert config.relay


def test_a_flag_wins_over_a_variable_and_that_over_the_default() -> None:
    environment = {"BURI_SERVER_LISTEN": "10.0.0.1:81", "BURI_SERVER_STATE_DIR": "/b", "BURI_SERVER_BASE_DOMAIN": ""}
    config = settings(environment, state_dir="/a")
    assert (config.state_dir, config.listen, config.base_domain) == (Path("/a"), AddrPort.parse("10.0.0.1:81"), None)
    assert settings(environment, listen="10.0.0.1:82").listen.port == 82
    assert settings({"HOME": "/root"}).listen.port == 8080
    assert settings({"BURI_SERVER_POLICY": "/etc/policy.hujson"}).policy == Path("/etc/policy.hujson")
    assert settings(environment).policy is None


def test_the_url_follows_the_listener_and_its_port_is_where_clients_find_the_relay() -> None:
    assert settings(listen=":8080").url == "http://localhost:8080"
    assert settings(listen="[fd00::1]:8080").url == "http://[fd00::1]:8080"
    assert settings(listen="[fd00::1]:8080").host == "fd00::1"
    assert settings(listen="10.0.0.1:443", tls_cert="c", tls_key="k").url == "https://10.0.0.1:443"
    config = settings(listen="10.0.0.1:8443", url="https://vpn.example.org/", tls_cert="c", tls_key="k")
    assert (config.url, config.public_port, config.tls) == ("https://vpn.example.org", 443, True)
    assert settings(listen=":8080", url="http://10.0.0.1:9000").public_port == 8080
    assert settings(listen=":8080", url="http://10.0.0.1").public_port == 8080


@pytest.mark.parametrize("value", ["1", "true", "Yes"])
def test_a_switch_can_be_a_variable(value: str) -> None:
    config = settings({"BURI_SERVER_NO_RELAY": value})
    assert (config.relay, config.stun) == (False, None)
    assert settings({"BURI_SERVER_NO_RELAY": "0"}).relay


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.9.9", "[fd12::1]", "[::1]"]
)
def test_plain_http_is_taken_where_real_clients_stay_with_it(host: str) -> None:
    assert settings(listen=":80", url=f"http://{host}").host == host.strip("[]")


@pytest.mark.parametrize(
    "host", ["vpn.example.org", "203.0.113.1", "100.64.0.1", "169.254.1.1", "172.32.0.1", "[2001:db8::1]"]
)
def test_plain_http_is_refused_where_they_would_insist_on_tls(host: str) -> None:
    said = refusal(url=f"http://{host}:8080")
    assert said == (
        f"Clients speak plain HTTP to private addresses and localhost only, and {host.strip('[]')} is neither: after a "
        "reconnect they would insist on TLS at port 443. "
        "Give --tls-cert and --tls-key with an https:// URL, or a private address (10.…, 192.168.…)."
    )


@pytest.mark.parametrize(
    "url",
    ["vpn.example.org", "ftp://x", "http://", "http://10.0.0.1/path", "http://10.0.0.1?q", "http://10.0.0.1#f",
     "http://10.0.0.1:0", "http://10.0.0.1:99999", "http://10.0.0.1:x", "http://[::1", "http://me@10.0.0.1"],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    assert refusal(url=url) == f"--url takes http(s)://HOST[:PORT], not {url!r}."


def test_certificate_and_url_must_fit() -> None:
    assert refusal(tls_cert="c") == refusal(tls_key="k") == "--tls-cert and --tls-key go together."
    assert refusal(url="https://vpn.example.org") == (
        "https://vpn.example.org needs a certificate. Give --tls-cert and --tls-key, or use a plain private address."
    )
    assert refusal(url="http://10.0.0.1", tls_cert="c", tls_key="k") == (
        "There is a certificate, but http://10.0.0.1 is plain. Give an https:// URL with --url."
    )


@pytest.mark.parametrize("text", ["8080", "host:80", "1.2.3.4", "1.2.3.4:x", "1.2.3.4:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    assert refusal(listen=text) == f"--listen takes ADDRESS:PORT (such as 0.0.0.0:8080), not {text!r}."
    assert refusal(stun=text) == f"--stun takes ADDRESS:PORT (such as 0.0.0.0:8080), not {text!r}."


def test_ports_that_cannot_serve_are_refused() -> None:
    assert refusal(listen="10.0.0.1:0") == "--listen takes a port that clients can know, not 0."
    said = "--stun takes a port from 1 to 65534: the next one answers too."
    assert refusal(stun="0.0.0.0:0") == refusal(stun="0.0.0.0:65535") == said
    assert refusal(no_relay=True, stun=":3478") == "--stun belongs to the relay. Drop it, or drop --no-relay."


def test_variables_are_checked_as_flags_are() -> None:
    said = refusal({"BURI_SERVER_LISTN": ":80"})
    assert said.startswith("The variable BURI_SERVER_LISTN is not known. Known are BURI_SERVER_ALLOW, ")
    assert refusal({"BURI_SERVER_NO_RELAY": "perhaps"}) == "BURI_SERVER_NO_RELAY is true or false, not 'perhaps'."
