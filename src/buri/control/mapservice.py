"""Map requests: whose they are, what they report, and what they are answered."""

from __future__ import annotations

from buri.control.clock import Clock
from buri.control.domain import reports
from buri.control.ledger import Ledger
from buri.control.mapper.streams import Mapper, Stream
from buri.control.snapshot import NodeRecord
from buri.core.errors import RefusedError, WireError
from buri.core.keys import MachinePublic, NodePublic
from buri.wire.tailcfg.mapping import MapRequest


class MapService:
    """Serves /machine/map. Every method raises RefusedError when the node key is not this machine's."""

    def __init__(self, ledger: Ledger, mapper: Mapper, clock: Clock) -> None:
        self._ledger = ledger
        self._mapper = mapper
        self._clock = clock

    async def update(self, machine: MachinePublic, request: MapRequest) -> None:
        """A lite update; committed on return."""
        node = self._node(machine, request)
        await self._ledger.enter(reports.take_report(self._ledger.head, node, request, self._clock.wall_s()))

    async def full_map(self, machine: MachinePublic, request: MapRequest) -> bytes:
        """One framed whole netmap."""
        node = self._node(machine, request)
        await self._fill_gaps(node, request)
        return self._mapper.full_map(self._committed(node).id)

    async def open_map(self, machine: MachinePublic, request: MapRequest) -> Stream:
        """Begin a stream."""
        node = self._node(machine, request)
        await self._fill_gaps(node, request)
        return self._mapper.open(self._committed(node).id)

    async def _fill_gaps(self, node: NodeRecord, request: MapRequest) -> None:
        await self._ledger.enter(reports.fill_gaps(self._ledger.head, node, request, self._clock.wall_s()))

    def _committed(self, node: NodeRecord) -> NodeRecord:
        committed = self._ledger.snapshot.nodes.get(node.id)
        if committed is None:
            raise _unknown()
        return committed

    def _node(self, machine: MachinePublic, request: MapRequest) -> NodeRecord:
        try:
            key = NodePublic.parse(request.node_key)
        except WireError as error:
            raise WireError(f"NodeKey of a MapRequest: {error.message}") from error
        node = self._ledger.head.node_of_key(key)
        if node is None or node.machine != machine:
            raise _unknown()
        return node


def _unknown() -> RefusedError:
    return RefusedError("This server knows no such node of this machine.", remedy="Log in again.")
