"""The shell around the control client: it fetches, dials, carries bytes and keeps the timer, and decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine

from buri.core.errors import BuriError, UnreachableError
from buri.machine.controlclient import ControlClient
from buri.machine.controlevents import ControlEvent, Dial, FetchKey, HangUp, SendBytes
from buri.netio.streams import connect, describe, http
from buri.node.timer import MachineTimer

log = logging.getLogger("buri.node.control")

_READ_BYTES = 1 << 16
_KEY_BYTES = 1 << 16


class ControlLink:
    """Drives `client`; `on_event` hears what it says, within the loop."""

    def __init__(self, client: ControlClient, on_event: Callable[[ControlEvent], None], *, mark: int) -> None:
        self.client = client
        self._on_event = on_event
        self._mark = mark
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._timer = MachineTimer(self._due)
        self._pumping = False

    def now(self) -> float:
        """The clock of the client."""
        return asyncio.get_running_loop().time()

    def pump(self) -> None:
        """Do what the client wants; to be called after every verb."""
        if self._pumping:
            return  # an event's listener called a verb: the loop below sees to it
        self._pumping = True
        try:
            busy = True
            while busy:
                busy = False
                while (order := self.client.poll_transmit()) is not None:
                    busy = True
                    self._do(order)
                while (event := self.client.poll_event()) is not None:
                    busy = True
                    self._on_event(event)
        finally:
            self._pumping = False
        self._timer.arm(self.client.next_timeout())

    async def close(self) -> None:
        """Hang up for good."""
        self._timer.arm(None)
        task = self._task
        self._hang_up()
        if task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _due(self) -> None:
        self.client.handle_timeout(self.now())
        self.pump()

    def _do(self, order: FetchKey | Dial | SendBytes | HangUp) -> None:
        match order:
            case FetchKey(url):
                self._start(self._fetch(url))
            case Dial(host, port, tls):
                self._start(self._carry(host, port, tls))
            case SendBytes(data):
                if self._writer is not None and not self._writer.is_closing():
                    self._writer.write(data)
            case HangUp():
                self._hang_up()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._hang_up()
        self._task = asyncio.get_running_loop().create_task(work, name="control")

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._task = None

    async def _fetch(self, url: str) -> None:
        me = asyncio.current_task()
        try:
            status, body = await http("GET", url, limit_bytes=_KEY_BYTES, mark=self._mark)
        except UnreachableError as error:
            if self._task is me:
                self.client.handle_failed(error.message, self.now())
        except BuriError as error:
            if self._task is me:
                self.client.handle_stranger(error.message, self.now())
        else:
            if self._task is me:
                self.client.handle_key(status, body, self.now())
        self.pump()

    async def _carry(self, host: str, port: int, tls: bool) -> None:
        me = asyncio.current_task()
        reason = "the control server closed the connection"
        try:
            reader, writer = await connect(host, port, tls=tls, mark=self._mark)
            if self._task is not me:
                writer.close()
                return
            self._writer = writer
            self.client.handle_connected(self.now())
            self.pump()
            while self._task is me and (data := await reader.read(_READ_BYTES)):
                if self._task is me:
                    self.client.handle_bytes(data, self.now(), time.time())
                    self.pump()
        except BuriError as error:
            reason = error.message
        except OSError as error:
            reason = describe(error)
        except Exception:  # a bug of ours may cost a connection, not the node its control server for good
            log.exception("Reading the control server failed in an unforeseen way; please report this.")
            reason = "burid failed on what it said"
        if self._task is me:
            self.client.handle_failed(reason, self.now())
            self.pump()
