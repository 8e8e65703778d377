"""The client's Noise against a responder written from the specification alone, and against damage."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from buri.core.errors import PeerError, RefusedError, StateError, WireError
from buri.core.keys import MachinePrivate
from buri.machine.noiseclient import NoiseClient
from buri.wire.noise import MAX_PLAINTEXT_BYTES

CLIENT = MachinePrivate.from_entropy(b"c" * 32)
SERVER = MachinePrivate.from_entropy(b"s" * 32)
VERSION = 130


def blake(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def hkdf(chain: bytes, secret: bytes) -> tuple[bytes, bytes]:
    extracted = hmac.new(chain, secret, "blake2s").digest()
    first = hmac.new(extracted, b"\x01", "blake2s").digest()
    return first, hmac.new(extracted, first + b"\x02", "blake2s").digest()


def agree(private: MachinePrivate, public: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private.raw).exchange(X25519PublicKey.from_public_bytes(public))


class Responder:
    """Noise IK's other side."""

    def __init__(self, initiation: bytes) -> None:
        assert len(initiation) == 101
        assert initiation[:5] == VERSION.to_bytes(2, "big") + b"\x01\x00\x60"
        theirs, sealed, tag = initiation[5:37], initiation[37:85], initiation[85:]
        chain = state = blake(b"Noise_IK_25519_ChaChaPoly_BLAKE2s")
        for part in (b"Tailscale Control Protocol v130", SERVER.public().raw, theirs):
            state = blake(state + part)
        chain, key = hkdf(chain, agree(SERVER, theirs))
        self.peer = ChaCha20Poly1305(key).decrypt(bytes(12), sealed, state)
        state = blake(state + sealed)
        chain, key = hkdf(chain, agree(SERVER, self.peer))
        assert ChaCha20Poly1305(key).decrypt(bytes(12), tag, state) == b""
        state = blake(state + tag)
        own = MachinePrivate.from_entropy(b"e" * 32)
        state = blake(state + own.public().raw)
        chain, _ = hkdf(chain, agree(own, theirs))
        chain, key = hkdf(chain, agree(own, self.peer))
        tail = ChaCha20Poly1305(key).encrypt(bytes(12), b"", state)
        self.response = b"\x02\x00\x30" + own.public().raw + tail
        receive, send = hkdf(chain, b"")
        self._receive, self._send = ChaCha20Poly1305(receive), ChaCha20Poly1305(send)
        self._received = self._sent = 0

    def seal(self, plain: bytes) -> bytes:
        sealed = self._send.encrypt(bytes(4) + self._sent.to_bytes(8, "big"), plain, None)
        self._sent += 1
        return b"\x04" + len(sealed).to_bytes(2, "big") + sealed

    def open(self, records: bytes) -> list[bytes]:
        found = []
        while records:
            length = int.from_bytes(records[1:3], "big")
            assert records[0] == 4
            nonce = bytes(4) + self._received.to_bytes(8, "big")
            found.append(self._receive.decrypt(nonce, records[3 : 3 + length], None))
            self._received += 1
            records = records[3 + length :]
        return found


@pytest.fixture
def client() -> NoiseClient:
    return NoiseClient(CLIENT, SERVER.public(), VERSION, MachinePrivate.from_entropy(b"f" * 32))


def test_both_sides_agree_and_the_server_learns_who_we_are(client: NoiseClient) -> None:
    responder = Responder(client.initiation())
    assert responder.peer == CLIENT.public().raw
    assert client.receive(responder.response + responder.seal(b"first")) == b"first"
    assert client.established
    assert responder.open(client.seal(b"hello")) == [b"hello"]


def test_bytes_may_come_one_at_a_time(client: NoiseClient) -> None:
    responder = Responder(client.initiation())
    stream = responder.response + responder.seal(b"abc") + responder.seal(b"") + responder.seal(b"def")
    assert b"".join(client.receive(bytes((byte,))) for byte in stream) == b"abcdef"


def test_long_data_is_cut_into_records_a_server_takes(client: NoiseClient) -> None:
    responder = Responder(client.initiation())
    client.receive(responder.response)
    data = bytes(range(256)) * 40
    parts = responder.open(client.seal(data))
    assert b"".join(parts) == data
    assert max(map(len, parts)) == MAX_PLAINTEXT_BYTES


def test_nothing_can_be_sealed_before_the_response(client: NoiseClient) -> None:
    client.initiation()
    with pytest.raises(StateError):
        client.seal(b"too early")


def test_a_refusal_is_shown(client: NoiseClient) -> None:
    client.initiation()
    with pytest.raises(RefusedError, match="go away"):
        client.receive(b"\x03\x00\x07go away")


@pytest.mark.parametrize("at", [3, 40, 50])
def test_a_damaged_response_proves_nothing(client: NoiseClient, at: int) -> None:
    response = bytearray(Responder(client.initiation()).response)
    response[at] ^= 1
    with pytest.raises(WireError):
        client.receive(bytes(response))
    assert not client.established


@pytest.mark.parametrize(
    "junk", [b"\x04\x00\x10" + bytes(16), b"\x09\x00\x00", b"\x02\x00\x01x", b"\x04\xff\xff", b"HTTP/1.1 200"]
)
def test_junk_in_place_of_the_response_is_the_servers_fault(client: NoiseClient, junk: bytes) -> None:
    client.initiation()
    with pytest.raises(PeerError):
        client.receive(junk)


def test_a_replayed_record_is_refused(client: NoiseClient) -> None:
    responder = Responder(client.initiation())
    record = responder.seal(b"once")
    client.receive(responder.response + record)
    with pytest.raises(WireError):
        client.receive(record)
