"""Both ends of the Noise layer meet, and neither takes nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buri.core.errors import PeerError, StateError, WireError
from buri.core.keys import MachinePrivate
from buri.machine.noiseclient import NoiseClient
from buri.machine.noiseserver import NoiseServer
from buri.wire.noise import HEADER_BYTES, MAX_PLAINTEXT_BYTES, RECORD, Agreement


def key(byte: int) -> MachinePrivate:
    return MachinePrivate.from_entropy(bytes([byte]) * 32)


def pair() -> tuple[NoiseClient, NoiseServer]:
    server = NoiseServer(Agreement(key(1)), key(2))
    client = NoiseClient(key(3), key(1).public(), 130, key(4))
    client.receive(server.accept(client.initiation()))
    return client, server


def test_a_handshake_tells_each_side_the_other() -> None:
    client, server = pair()
    assert client.established
    assert server.machine == key(3).public()
    assert server.version == 130


@given(st.lists(st.binary(max_size=9000), max_size=5))
def test_bytes_cross_both_ways_whatever_their_length(chunks: list[bytes]) -> None:
    client, server = pair()
    for chunk in chunks:
        assert server.receive(client.seal(chunk)) == chunk
        assert client.receive(server.seal(chunk)) == chunk


def test_a_record_never_passes_4096_bytes_with_its_header() -> None:
    client, _ = pair()
    sealed = client.seal(bytes(MAX_PLAINTEXT_BYTES + 1))
    assert sealed[0] == RECORD
    first = int.from_bytes(sealed[1:3], "big")
    assert HEADER_BYTES + first == 4096
    assert len(sealed) == 4096 + HEADER_BYTES + 1 + 16


def test_records_come_in_pieces_of_any_size() -> None:
    client, server = pair()
    sealed = client.seal(b"piecemeal")
    assert b"".join(server.receive(sealed[i : i + 1]) for i in range(len(sealed))) == b"piecemeal"


def test_a_replayed_record_is_refused() -> None:
    client, server = pair()
    sealed = client.seal(b"once")
    server.receive(sealed)
    with pytest.raises(WireError):
        server.receive(sealed)


def test_an_initiation_for_another_server_is_refused() -> None:
    client = NoiseClient(key(3), key(9).public(), 130, key(4))
    with pytest.raises(WireError):
        NoiseServer(Agreement(key(1)), key(2)).accept(client.initiation())


def test_an_altered_version_is_refused() -> None:
    initiation = bytearray(NoiseClient(key(3), key(1).public(), 130, key(4)).initiation())
    initiation[1] ^= 1
    with pytest.raises(WireError):
        NoiseServer(Agreement(key(1)), key(2)).accept(bytes(initiation))


@given(st.binary(max_size=200))
def test_garbage_for_an_initiation_is_a_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerError):
        NoiseServer(Agreement(key(1)), key(2)).accept(data)


def test_nothing_can_be_sealed_before_the_handshake() -> None:
    with pytest.raises(StateError):
        NoiseServer(Agreement(key(1)), key(2)).seal(b"too early")
