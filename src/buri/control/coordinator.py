"""The control server's domain as one object: `service.ControlService` for the front, `admin` for administrators.

Start it with `Coordinator.open`; it owns the state directory's lock, the database, and every timer until `close`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from buri.control.admin import Admin
from buri.control.changes import Change, Fields, NodeAdded, NodeChanged, NodeRemoved
from buri.control.clock import Clock, SystemClock
from buri.control.edit import Edit
from buri.control.ledger import CommitLog, Ledger
from buri.control.mapper.streams import Mapper, Stream
from buri.control.mapservice import MapService
from buri.control.people import People
from buri.control.policies import Policies
from buri.control.presence import Presence
from buri.control.registrar import Registrar
from buri.control.service import PendingLogin
from buri.control.settings import Settings
from buri.control.snapshot import Snapshot
from buri.control.store.database import FILE_NAME, Database
from buri.control.store.lock import StateLock
from buri.control.store.writer import Writer
from buri.core.errors import InternalError, SystemFault
from buri.core.keys import MachinePublic, NodePublic
from buri.wire.tailcfg.base import format_time
from buri.wire.tailcfg.derpmap import DERPMap
from buri.wire.tailcfg.mapping import MapRequest
from buri.wire.tailcfg.register import RegisterRequest, RegisterResponse

CLOCK_SLACK_S = 3600.0
_log = logging.getLogger(__name__)
RelayKeys = Callable[[frozenset[NodePublic]], None]


class Coordinator:
    """Users, nodes, keys and netmaps of one tailnet. Lives in one event loop."""

    def __init__(
        self,
        snapshot: Snapshot,
        log: CommitLog,
        settings: Settings,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        lock: StateLock | None = None,
    ) -> None:
        self._clock = clock
        self._lock = lock
        self._relay_keys: RelayKeys | None = None
        self._relay_keys_due = False
        self.ledger = Ledger(snapshot, log)
        self.mapper = Mapper(snapshot, clock, lambda: entropy(1)[0] / 256, shared_frames=settings.shared_frames)
        self.ledger.subscribe(self.mapper.publish)
        self._presence = Presence(
            self.ledger, clock, self.mapper.is_open, ephemeral_timeout_s=settings.ephemeral_timeout_s
        )
        self.mapper.on_open = self._presence.opened
        self.mapper.on_left = self._presence.left
        self.ledger.subscribe(self._note_keys)
        self.registrar = Registrar(self.ledger, clock, settings, entropy, lambda: self.mapper.sees.compiled.policy)
        self._maps = MapService(self.ledger, self.mapper, clock)
        self.policies = Policies(self.ledger, clock, lambda: self.mapper.sees.compiled)
        self.admin = Admin(self.ledger, self.registrar, clock, settings, entropy)
        self.people = People(self.ledger, clock, entropy)
        self._presence.start()

    @classmethod
    async def open(
        cls,
        state_dir: Path,
        settings: Settings,
        derp_map: DERPMap,
        *,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        lock: StateLock | None = None,
    ) -> Coordinator:
        """Lock the state directory (or take over the lock on it), migrate and read its database, begin.

        Raises InUseError, NotPermittedError, SystemFault or ConfigError, having changed nothing but what was migrated.
        """
        loop = asyncio.get_running_loop()
        lock = lock or StateLock(state_dir)
        try:
            database = await loop.run_in_executor(None, Database, state_dir / FILE_NAME)
            loaded = await loop.run_in_executor(None, database.load)
        except BaseException:
            lock.close()
            raise
        snapshot = Snapshot.build(
            tailnet_id=1,
            base_domain=settings.base_domain,
            nodes=loaded.nodes,
            users=loaded.users,
            auth_keys=loaded.auth_keys,
            counters=loaded.counters,
            derp_map=derp_map,
            policies=loaded.policies,
            credentials=loaded.credentials,
        )
        writer = Writer(database, loop)
        clock = clock or SystemClock()
        _mind_the_clock(snapshot, clock.wall_s())
        return cls(snapshot, writer, settings, clock=clock, entropy=entropy, lock=lock)

    async def register(self, machine: MachinePublic, request: RegisterRequest, source: str = "") -> RegisterResponse:
        """See ControlService."""
        return await self.registrar.register(machine, request, source)

    async def update(self, machine: MachinePublic, request: MapRequest) -> None:
        """See ControlService."""
        await self._maps.update(machine, request)

    async def full_map(self, machine: MachinePublic, request: MapRequest) -> bytes:
        """See ControlService."""
        return await self._maps.full_map(machine, request)

    async def open_map(self, machine: MachinePublic, request: MapRequest) -> Stream:
        """See ControlService."""
        return await self._maps.open_map(machine, request)

    def pending_login(self, code: str) -> PendingLogin | None:
        """See ControlService."""
        return self.registrar.pending_login(code)

    def pending_logins(self) -> list[PendingLogin]:
        """All logins that wait for an administrator, oldest first."""
        return self.registrar.pending_logins()

    def set_derp_map(self, derp_map: DERPMap) -> None:
        """Give every node another map of relays."""
        if derp_map != self.ledger.head.derp_map:
            edit = Edit(self.ledger.head)
            edit.put_derp_map(derp_map)
            self.ledger.enter(edit).add_done_callback(lambda future: self._retry_derp_map(future, derp_map))

    def _retry_derp_map(self, future: asyncio.Future[None], derp_map: DERPMap) -> None:
        """A store that failed took back what was built on it, this too: say it again."""
        if not future.cancelled() and isinstance(future.exception(), SystemFault | InternalError):
            self.set_derp_map(derp_map)

    def relay_keys(self) -> frozenset[NodePublic]:
        """The node keys that the relay shall admit now: all authorized ones that have not expired."""
        now_s = self._clock.wall_s()
        nodes = self.ledger.snapshot.nodes.values()
        return frozenset(node.key for node in nodes if node.authorized and not node.expired(now_s))

    def on_relay_keys(self, call: RelayKeys) -> None:
        """Call `call` with `relay_keys()` now and after each change of it (several changes at once make one call)."""
        self._relay_keys = call
        call(self.relay_keys())

    def _note_keys(self, _snapshot: Snapshot, changes: Sequence[Change]) -> None:
        if self._relay_keys is None or self._relay_keys_due or not any(map(_touches_keys, changes)):
            return
        self._relay_keys_due = True
        self._clock.call_later(0.0, self._tell_keys)

    def _tell_keys(self) -> None:
        self._relay_keys_due = False
        if self._relay_keys is not None:
            self._relay_keys(self.relay_keys())

    async def close(self) -> None:
        """End every stream, write what was entered, let go of the directory."""
        self.mapper.close()
        self._presence.close()
        await asyncio.get_running_loop().run_in_executor(None, self.ledger.close)
        if self._lock is not None:
            self._lock.close()


def _touches_keys(change: Change) -> bool:
    if isinstance(change, NodeChanged):
        return bool(change.fields & (Fields.WHOLE | Fields.KEY_EXPIRY | Fields.STANDING))
    return isinstance(change, NodeAdded | NodeRemoved)


def _mind_the_clock(snapshot: Snapshot, now_s: float) -> None:
    """Say so when the machine's clock is behind what the server wrote with it: keys made now would end too early."""
    known_s = max((max(node.created_s, node.last_seen_s) for node in snapshot.nodes.values()), default=0.0)
    if known_s > now_s + CLOCK_SLACK_S:
        now, known = format_time(float(int(now_s))), format_time(float(int(known_s)))
        _log.warning("This machine's clock says %s, but its database knows of %s: set the clock.", now, known)
