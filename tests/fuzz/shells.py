"""What stands around a shell while it is fuzzed: a transport that keeps what is written, a log that may show no failure."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator
from typing import Any


class KeptTransport(asyncio.Transport):
    """A connection whose other end takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.out = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.out += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass


class _Failures(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def no_failure_logged() -> Iterator[None]:
    """Shells catch what they did not foresee, log it and go on; here that is a finding."""
    handler, logger = _Failures(), logging.getLogger("buri")
    kept = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate, logger.level = kept
    for record in handler.records:
        cause = record.exc_info[1] if record.exc_info else None
        raise AssertionError(record.getMessage()) from cause


def play(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario in a loop of its own, which is gone afterwards."""
    with no_failure_logged():
        asyncio.run(scenario)


async def settle() -> None:
    """Let tasks that wait for nothing run to their end."""
    for _ in range(8):
        await asyncio.sleep(0)
