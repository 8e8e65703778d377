"""The engine's binary (rust/engine-py). Plain values only; `native.py` and `frontdoor.py` give them names."""

from typing import final

__all__ = ["SOURCE_HASH", "Engine"]

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
