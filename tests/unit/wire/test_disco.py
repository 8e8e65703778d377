"""Disco's bytes: upstream's own examples, boxes both ways, and nonsense."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buri.core.addresses import AddrPort
from buri.core.errors import WireError
from buri.core.keys import DiscoPrivate, DiscoPublic, NodePublic
from buri.wire import disco

TXID = bytes(range(1, 13))
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
NODE = NodePublic(bytes([1, 2] + [0] * 28 + [30, 31]))

addresses = st.builds(
    AddrPort,
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda ip: getattr(ip, "ipv4_mapped", None) is None)),
    st.integers(0, 65535),
)
messages = st.one_of(
    st.builds(
        disco.Ping,
        st.binary(min_size=12, max_size=12),
        st.binary(min_size=32, max_size=32).filter(any).map(NodePublic),
        st.integers(0, 1400),
    ),
    st.builds(disco.Pong, st.binary(min_size=12, max_size=12), addresses),
    st.builds(disco.CallMeMaybe, st.lists(addresses, max_size=100).map(tuple)),
)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (disco.Ping(TXID, None), "01 00 01 02 03 04 05 06 07 08 09 0a 0b 0c"),
        (
            disco.Ping(TXID, NODE),
            "01 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 01 02" + " 00" * 28 + " 1e 1f",
        ),
        (
            disco.Ping(TXID, NODE, padding_bytes=3),
            "01 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 01 02" + " 00" * 28 + " 1e 1f 00 00 00",
        ),
        (
            disco.Pong(TXID, AddrPort.parse("2.3.4.5:1234")),
            "02 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00 00 00 00 00 00 00 00 00 ff ff 02 03 04 05 04 d2",
        ),
        (
            disco.Pong(TXID, AddrPort.parse("[fed0::12]:6666")),
            "02 00 01 02 03 04 05 06 07 08 09 0a 0b 0c fe d0 00 00 00 00 00 00 00 00 00 00 00 00 00 12 1a 0a",
        ),
        (disco.CallMeMaybe(()), "03 00"),
        (
            disco.CallMeMaybe((AddrPort.parse("1.2.3.4:567"), AddrPort.parse("[2001::3456]:789"))),
            "03 00 00 00 00 00 00 00 00 00 00 00 ff ff 01 02 03 04 02 37"
            " 20 01 00 00 00 00 00 00 00 00 00 00 00 00 34 56 03 15",
        ),
    ],
)
def test_messages_have_the_bytes_of_upstreams_examples(message: disco.Message, text: str) -> None:
    assert disco.build_message(message).hex(" ") == text
    assert disco.parse_message(bytes.fromhex(text)) == message


@given(messages)
def test_what_is_built_parses_to_itself(message: disco.Message) -> None:
    assert disco.parse_message(disco.build_message(message)) == message


@given(messages, st.binary(max_size=20))
def test_trailing_bytes_of_a_later_version_do_not_break_a_pong(message: disco.Message, tail: bytes) -> None:
    if isinstance(message, disco.Pong):
        assert disco.parse_message(disco.build_message(message) + tail) == message


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_raise_a_wire_error(plain: bytes) -> None:
    with suppress(WireError):
        disco.parse_message(plain)


def test_a_box_of_alices_opens_for_bob_and_for_nobody_else() -> None:
    alice, bob, eve = keys(3)
    sent = disco.Ping(TXID, NODE)
    datagram = disco.seal_datagram(
        sent, sender=alice.public(), shared=disco.shared_key(alice, bob.public()), nonce=bytes(24)
    )

    assert disco.looks_like_disco(datagram)
    assert disco.parse_sender(datagram) == alice.public()
    assert disco.open_datagram(datagram, disco.shared_key(bob, alice.public())) == sent
    with pytest.raises(WireError, match="does not open"):
        disco.open_datagram(datagram, disco.shared_key(eve, alice.public()))


def test_the_outer_form_is_magic_key_nonce_and_box() -> None:
    """Keys and nonce of NaCl's own example (D. J. Bernstein, "Cryptography in NaCl", section 8)."""
    alice = DiscoPrivate(ALICE)
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    bob = DiscoPublic(bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"))
    datagram = disco.seal_datagram(
        disco.CallMeMaybe(()), sender=alice.public(), shared=disco.shared_key(alice, bob), nonce=nonce
    )

    assert datagram[:6].hex() == "5453f09f92ac"
    assert datagram[6:38] == alice.public().raw
    assert datagram[38:62] == nonce
    assert len(datagram) == 62 + 16 + 2


def test_the_shared_key_is_nacls() -> None:
    """The first example of "Cryptography in NaCl": Alice's secret key and Bob's public key."""
    alice = DiscoPrivate(ALICE)
    bob = DiscoPublic(bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"))

    assert disco.shared_key(alice, bob).hex() == "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389"


@pytest.mark.parametrize("cut", [0, 5, 61])
def test_a_datagram_cut_before_its_box_is_not_disco(cut: int) -> None:
    alice, bob = keys(2)
    shared = disco.shared_key(alice, bob.public())
    datagram = disco.seal_datagram(disco.CallMeMaybe(()), sender=alice.public(), shared=shared, nonce=bytes(24))

    with pytest.raises(WireError):
        disco.open_datagram(datagram[:cut], shared)
    with pytest.raises(WireError):
        disco.parse_sender(datagram[:cut])


def test_a_box_cut_or_changed_anywhere_does_not_open() -> None:
    alice, bob = keys(2)
    shared = disco.shared_key(alice, bob.public())
    datagram = disco.seal_datagram(disco.Ping(TXID, NODE), sender=alice.public(), shared=shared, nonce=bytes(24))

    for at in range(62, len(datagram)):
        changed = datagram[:at] + bytes([datagram[at] ^ 1]) + datagram[at + 1 :]
        with pytest.raises(WireError):
            disco.open_datagram(changed, shared)
        with pytest.raises(WireError):
            disco.open_datagram(datagram[:at], shared)


def test_a_peer_key_of_low_order_is_an_error_not_a_crash() -> None:
    (alice,) = keys(1)
    with pytest.raises(WireError, match="usable"):
        disco.shared_key(alice, DiscoPublic(bytes(32)))


def test_mapped_addresses_come_out_as_ipv4() -> None:
    message = disco.parse_message(bytes.fromhex("0200") + TXID + bytes(10) + b"\xff\xff\x01\x02\x03\x04\x00\x50")

    assert message == disco.Pong(TXID, AddrPort(IPv4Address("1.2.3.4"), 80))
    assert not isinstance(getattr(message, "source").address, IPv6Address)  # noqa: B009  # the union has no `source`


def test_a_call_me_maybe_of_a_hundred_thousand_addresses_is_bounded() -> None:
    message = disco.parse_message(b"\x03\x00" + bytes(18) * 3000)

    assert isinstance(message, disco.CallMeMaybe)
    assert len(message.endpoints) == disco.MAX_CALL_ME_MAYBE_ENDPOINTS


def test_unknown_types_and_versions_are_told_apart_from_errors() -> None:
    assert disco.parse_message(b"\x63\x00rest") == disco.UnknownMessage(0x63)
    assert disco.parse_message(b"\x01\x07rest") == disco.UnknownMessage(1)


def keys(count: int) -> list[DiscoPrivate]:
    rng = Random(1)
    return [DiscoPrivate.from_entropy(rng.randbytes(32)) for _ in range(count)]
