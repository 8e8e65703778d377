"""The engine's binary (rust/engine-py). Plain values only; `native.py` and `frontdoor.py` give them names."""

from typing import final

__all__ = ["SOURCE_HASH", "Engine", "FrontDoor"]

SOURCE_HASH: str

@final
class Engine:
    """One engine thread. Orders and events are tuples whose first item is their kind; see native.py."""

    def __new__(
        cls,
        private_key: bytes,
        tun_name: str | None,
        mtu: int,
        udp_port: int,
        mark: int,
        offloads: tuple[bool, bool, bool, bool, bool],
        spin_us: int,
        event_capacity: int,
    ) -> Engine: ...
    def apply(self, orders: list[tuple[object, ...]]) -> None: ...
    def poll_events(self, limit: int) -> list[tuple[object, ...]]: ...
    def fileno(self) -> int: ...
    def stats(
        self,
    ) -> tuple[list[tuple[bytes, int, int, float | None, float | None, float | None]], list[tuple[str, int]]]: ...
    def close(self) -> None: ...

@final
class FrontDoor:
    """One front door's thread; see frontdoor.py. Raises OSError(errno, text[, address]) or ValueError(phrase)."""

    def __new__(
        cls,
        listen: list[tuple[str, int]],
        stun: list[tuple[str, int]],
        certificate: tuple[bytes, bytes] | None,
        relay_key: bytes | None,
        handoff: str | None,
    ) -> FrontDoor: ...
    def listening(self) -> list[tuple[str, int]]: ...
    def stun_listening(self) -> list[tuple[str, int]]: ...
    def set_certificate(self, chain_pem: bytes, key_pem: bytes) -> None: ...
    def admit_all(self) -> None: ...
    def admit(self, keys: list[bytes]) -> None: ...
    def stats(self) -> tuple[list[tuple[str, int]], list[bytes]]: ...
    def close(self) -> None: ...
