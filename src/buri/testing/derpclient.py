"""A DERP client of a few lines, by blocking sockets and PyNaCl: what tests hold a relay's words against.

Frames and greeting: wire reference 1d (upstream: `derp/derp_client.go`).
"""

from __future__ import annotations

import socket
import ssl
from typing import Self

from nacl.public import Box, PrivateKey, PublicKey

SERVER_KEY, CLIENT_INFO, SERVER_INFO, SEND_PACKET, RECV_PACKET, KEEP_ALIVE = range(1, 7)
NOTE_PREFERRED, PEER_GONE = 7, 8
PING, PONG = 0x12, 0x13
MAGIC = "DERP🔑".encode()
TIMEOUT_S = 10.0


class DERPClient:
    """One connection, greeted: `server` is the relay's key; packets go by `send` and come by `receive`."""

    def __init__(self, sock: socket.socket, private: bytes, *, fast: bool = False) -> None:
        self.socket = sock
        self._private = PrivateKey(private)
        self.key = bytes(self._private.public_key)
        self._rest = b""
        ask = "GET /derp HTTP/1.1\r\nHost: relay\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
        sock.sendall((ask + ("Derp-Fast-Start: 1\r\n\r\n" if fast else "\r\n")).encode())
        if not fast:
            while b"\r\n\r\n" not in self._rest:
                self._more()
            self.head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        kind, body = self.receive()
        assert kind == SERVER_KEY
        assert body[:8] == MAGIC
        self.server = body[8:40]

    @classmethod
    def connect(
        cls, address: tuple[str, int], private: bytes, *, tls: ssl.SSLContext | None = None, fast: bool = False
    ) -> Self:
        """Dial, speak TLS when a context says so, upgrade and greet."""
        sock = socket.create_connection(address, timeout=TIMEOUT_S)
        try:
            if tls is not None:
                sock = tls.wrap_socket(sock, server_hostname="relay.example")
            client = cls(sock, private, fast=fast)
            client.greet()
        except BaseException:
            sock.close()
            raise
        return client

    def greet(self, info: bytes = b'{"version":2,"CanAckPings":true}') -> None:
        """Say who we are and read the relay's answer."""
        box = Box(self._private, PublicKey(self.server))
        self.write(CLIENT_INFO, self.key + bytes(box.encrypt(info)))
        kind, body = self.receive()
        assert kind == SERVER_INFO
        self.info = box.decrypt(body)

    def write(self, kind: int, body: bytes) -> None:
        """One frame."""
        self.socket.sendall(frame(kind, body))

    def send(self, to: bytes, packet: bytes) -> None:
        """One packet."""
        self.write(SEND_PACKET, to + packet)

    def receive(self) -> tuple[int, bytes]:
        """The next frame's type and body. Raises ConnectionError when the relay closed the connection."""
        while len(self._rest) < 5 or len(self._rest) < 5 + self._length():
            self._more()
        end = 5 + self._length()
        kind, body = self._rest[0], self._rest[5:end]
        self._rest = self._rest[end:]
        return kind, body

    def is_closed(self) -> bool:
        """Read to the end; whether there was one (TimeoutError otherwise)."""
        try:
            while True:
                self.receive()
        except ConnectionError:
            return True

    def close(self) -> None:
        self.socket.close()

    def _length(self) -> int:
        return int.from_bytes(self._rest[1:5], "big")

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("The relay closed the connection.")
        self._rest += data


def frame(kind: int, body: bytes) -> bytes:
    """A frame's bytes."""
    return bytes([kind]) + len(body).to_bytes(4, "big") + body
