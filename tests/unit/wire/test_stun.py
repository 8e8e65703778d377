"""STUN's bytes: RFC 5769's vectors, what upstream's server demands, and nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buri.core.addresses import AddrPort
from buri.core.errors import WireError
from buri.wire import stun

TXID = bytes.fromhex("b7e7a701bc34d686fa87dfae")

RFC5769_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RFC5769_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)

addresses = st.builds(
    AddrPort,
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda ip: getattr(ip, "ipv4_mapped", None) is None)),
    st.integers(0, 65535),
)


def test_the_rfcs_responses_are_read() -> None:
    assert stun.parse_response(RFC5769_IPV4) == (TXID, AddrPort.parse("192.0.2.1:32853"))
    assert stun.parse_response(RFC5769_IPV6) == (TXID, AddrPort.parse("[2001:db8:1234:5678:11:2233:4455:6677]:32853"))


def test_our_fingerprint_is_computed_as_the_rfcs_is() -> None:
    """The RFC's own FINGERPRINT of its IPv4 response, by the arithmetic of `build_request`."""
    from binascii import crc32

    assert (crc32(RFC5769_IPV4[:-8]) ^ 0x5354554E).to_bytes(4, "big") == RFC5769_IPV4[-4:]
    request = stun.build_request(TXID)
    assert (crc32(request[:-8]) ^ 0x5354554E).to_bytes(4, "big") == request[-4:]


def test_a_request_has_upstreams_attributes_in_upstreams_order() -> None:
    request = stun.build_request(TXID)

    assert request[:20].hex() == "0001" + "0014" + "2112a442" + TXID.hex()
    assert request[20:32] == b"\x80\x22\x00\x08tailnode"
    assert request[32:36] == b"\x80\x28\x00\x04"
    assert stun.parse_request(request, strict=True) == TXID


@given(st.binary(min_size=12, max_size=12), addresses)
def test_a_response_is_read_back(txid: bytes, source: AddrPort) -> None:
    assert stun.parse_response(stun.build_response(txid, source)) == (txid, source)


def test_a_plain_rfc_request_is_served_unless_strict() -> None:
    plain = b"\x00\x01\x00\x00" + stun.MAGIC_COOKIE + TXID

    assert stun.parse_request(plain) == TXID
    with pytest.raises(WireError, match="SOFTWARE"):
        stun.parse_request(plain, strict=True)


def test_a_wrong_fingerprint_is_refused_when_strict() -> None:
    request = bytearray(stun.build_request(TXID))
    request[-1] ^= 1

    with pytest.raises(WireError, match="FINGERPRINT"):
        stun.parse_request(bytes(request), strict=True)


@pytest.mark.parametrize("kind", ["8020", "0001"])
def test_the_older_forms_of_the_mapped_address_are_read(kind: str) -> None:
    value = "0001a147e112a643" if kind == "8020" else "000180550a000001"
    head = bytes.fromhex("0101000c2112a442") + TXID

    _, mapped = stun.parse_response(head + bytes.fromhex(kind + "0008" + value))

    assert mapped == AddrPort.parse("192.0.2.1:32853" if kind == "8020" else "10.0.0.1:32853")


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_parse_or_raise_a_wire_error(tail: bytes, request: bool) -> None:
    head = (b"\x00\x01" if request else b"\x01\x01") + (len(tail) & 0xFC).to_bytes(2, "big") + stun.MAGIC_COOKIE + TXID
    for parse in (stun.parse_request, stun.parse_response):
        try:
            parse(head + tail)
        except WireError:
            continue


def test_every_cut_of_a_response_is_an_error() -> None:
    response = stun.build_response(TXID, AddrPort.parse("192.0.2.1:1"))
    for length in range(len(response)):
        with pytest.raises(WireError):
            stun.parse_response(response[:length])


def test_wireguard_and_disco_do_not_look_like_stun() -> None:
    assert not stun.looks_like_stun(b"\x04\x00\x00\x00" + bytes(60))
    assert not stun.looks_like_stun(b"TS\xf0\x9f\x92\xac" + bytes(60))
    assert stun.looks_like_stun(RFC5769_IPV4)
