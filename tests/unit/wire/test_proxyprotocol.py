"""The front door's header: what is built is read, at whatever pieces it comes; what is not one is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buri.core.addresses import AddrPort
from buri.core.errors import WireError
from buri.wire.proxyprotocol import HEAD_BYTES, SIGNATURE, ProxyHeader, build_proxy_header, parse_proxy_header

ports = st.integers(0, 0xFFFF)


def headers() -> st.SearchStrategy[ProxyHeader]:
    nowhere = st.builds(ProxyHeader, st.none(), st.none(), st.booleans())
    families = [st.builds(AddrPort, st.ip_addresses(v=version), ports) for version in (4, 6)]
    return nowhere | st.one_of(*(st.builds(ProxyHeader, family, family, st.booleans()) for family in families))


@given(headers(), st.binary(max_size=40))
def test_what_is_built_is_read_and_nothing_of_what_follows(header: ProxyHeader, rest: bytes) -> None:
    built = build_proxy_header(header)
    assert parse_proxy_header(built + rest) == (header, len(built))


@given(headers())
def test_every_beginning_of_a_header_waits_for_the_rest(header: ProxyHeader) -> None:
    built = build_proxy_header(header)
    assert all(parse_proxy_header(built[:end]) is None for end in range(len(built)))


@given(st.binary(min_size=1, max_size=60))
def test_garbage_is_read_or_refused_and_nothing_else(data: bytes) -> None:
    for text in (data, SIGNATURE + data):
        try:
            found = parse_proxy_header(text)
        except WireError:
            continue
        assert found is None or found[1] <= len(text)


@pytest.mark.parametrize(
    "text", [b"GET / HTTP/1.1\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", b"\r\n\r\n\0\r\nQUIX\n"]
)
def test_a_connection_without_the_header_is_refused_at_once(text: bytes) -> None:
    with pytest.raises(WireError, match="does not begin with a PROXY v2 header"):
        parse_proxy_header(text)


def test_a_command_that_is_not_known_and_an_absurd_length_are_refused() -> None:
    for head in (b"\x31\x11\x00\x0c", b"\x22\x00\x00\x00", b"\x21\x11\xff\xff"):
        with pytest.raises(WireError, match="of a kind that is not known"):
            parse_proxy_header(SIGNATURE + head)


def test_addresses_that_are_cut_short_are_refused() -> None:
    with pytest.raises(WireError, match="too short for its addresses"):
        parse_proxy_header(SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11))


def test_the_tls_fact_is_one_bit_of_one_entry_among_others() -> None:
    def tls(*entries: bytes) -> bool:
        body = b"".join(entries)
        found = parse_proxy_header(SIGNATURE + b"\x20\x00" + len(body).to_bytes(2, "big") + body)
        assert found is not None
        assert found[1] == HEAD_BYTES + len(body)
        return found[0].tls

    other, ssl, no_ssl = b"\x05\x00\x03abc", b"\x20\x00\x05\x01\x00\x00\x00\x00", b"\x20\x00\x05\x02\x00\x00\x00\x00"
    assert tls(other, ssl)
    assert tls(ssl, other)
    assert not tls(other, no_ssl)
    assert not tls(b"\x20\x00\x00")
    assert not tls(b"\x20\x00")


def test_a_family_that_is_not_known_tells_nothing_not_even_of_tls() -> None:
    body = b"\x20\x00\x05\x01\x00\x00\x00\x00" + bytes(208)  # a Unix address whose first bytes look like that entry
    found = parse_proxy_header(SIGNATURE + b"\x21\x31" + len(body).to_bytes(2, "big") + body)
    assert found == (ProxyHeader(None, None, False), HEAD_BYTES + len(body))
