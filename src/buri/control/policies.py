"""The tailnet's policy in the hands of an administrator: read, check, put in force, explain, compare.

A new policy is checked whole (language, and its own tests against the tailnet as it is), then committed, then published.
One that fails leaves the old one in force. `if_match` guards against lost updates: it is the `etag` of the policy that
the edit began with. A server that takes its policy from a file takes it from nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from buri.control.clock import Clock
from buri.control.domain import accounts, tailnets
from buri.control.edit import Edit
from buri.control.ledger import Ledger
from buri.control.snapshot import PolicyRecord, Snapshot
from buri.core.errors import ConfigError, StateError, WireError
from buri.policy import diff, explain
from buri.policy.compiler import CompiledPolicy, run_tests
from buri.policy.diff import PairChange
from buri.policy.explain import Explanation
from buri.policy.flows import Endpoint, holder
from buri.policy.members import Placed
from buri.policy.ports import parse_protocol
from buri.policy.spans import parse_address
from buri.wire.hujson import Document

MAX_POLICY_BYTES = 2 << 20


class Question(msgspec.Struct, frozen=True):
    """Whether `src` reaches `dst` at `port` (0: at any) with `protocol` ("": TCP, UDP or ICMP)."""

    src: str
    dst: str
    port: int = 0
    protocol: str = ""


class Answer(msgspec.Struct, frozen=True):
    """An explanation with the policy it is about. `notes`: what stands in the way besides the policy."""

    explanation: Explanation
    document: Document
    notes: tuple[str, ...] = ()


class Policies:
    """Errors are of core.errors; PolicyError and SyntaxPlaceError carry the places of what is wrong."""

    def __init__(self, ledger: Ledger, clock: Clock, compiled: Callable[[], CompiledPolicy]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._compiled = compiled
        self._document: tuple[int, Document] | None = None
        self.file: Path | None = None
        """The file that the policy comes from; None: it is set by `set`."""

    @property
    def current(self) -> PolicyRecord:
        """The policy in force."""
        return self._ledger.snapshot.policy

    @property
    def history(self) -> tuple[PolicyRecord, ...]:
        """The policies that are remembered, oldest first; the last one is in force."""
        return self._ledger.snapshot.policies

    def version(self, number: int) -> PolicyRecord:
        """A remembered policy by its number."""
        for record in self.history:
            if record.id == number:
                return record
        raise StateError(f"Policy {number} is not remembered.", remedy="See: buri admin policy history")

    async def set(self, text: str, author: str, *, if_match: str = "") -> PolicyRecord:
        """Check a policy and put it in force; committed and published on return. Raises StateError, PolicyError, …"""
        if self.file is not None:
            raise StateError(
                f"This server takes its policy from {self.file}.",
                remedy="Edit that file: the server reads it again by itself. Or start the server without --policy.",
            )
        return await self._adopt(text, author, if_match)

    async def adopt_file(self, text: str, path: Path, *, tests: bool = True) -> PolicyRecord:
        """Put the text of the policy's file in force; `tests` False: whether its own tests pass or not."""
        return await self._adopt(text, f"file:{path}", "", tests=tests)

    async def _adopt(self, text: str, author: str, if_match: str, *, tests: bool = True) -> PolicyRecord:
        self._must_match(if_match)
        if text == self._ledger.head.policy.text:
            return self._ledger.head.policy
        await self.check(text, tests=tests)
        self._must_match(if_match)  # others went on while it was checked
        head = self._ledger.head
        record = PolicyRecord(id=head.counters.policy, text=text, author=author, created_s=self._clock.wall_s())
        edit = Edit(head)
        edit.put_counters(msgspec.structs.replace(head.counters, policy=record.id + 1))
        edit.put_policy(record)
        await self._ledger.enter(edit)
        return record

    def _must_match(self, etag: str) -> None:
        policy = self._ledger.head.policy
        if etag and etag.strip('"') != policy.etag:
            raise StateError(
                f"The policy is another by now: {policy.author or 'somebody'} changed it.",
                remedy="Get it anew and make your change there.",
            )

    async def check(self, text: str, *, tests: bool = True) -> CompiledPolicy:
        """Say whether a policy could be put in force; it is compiled over the tailnet as it is, on a thread."""
        size_bytes = len(text.encode())
        if size_bytes > MAX_POLICY_BYTES:
            raise ConfigError(f"A policy of {size_bytes} bytes is too large; {MAX_POLICY_BYTES} are allowed.")
        loop = asyncio.get_running_loop()
        head = self._ledger.head
        return await loop.run_in_executor(None, lambda: tailnets.check(text, head, tests=tests))

    async def test(self) -> CompiledPolicy:
        """Run the tests of the policy in force against the tailnet as it is. Raises PolicyError."""
        snapshot = self._ledger.snapshot
        return await asyncio.get_running_loop().run_in_executor(None, _tested, snapshot)

    async def compare(self, text: str) -> list[PairChange]:
        """What the policy, were it in force, would give and take."""
        new = await self.check(text)
        snapshot = self._ledger.snapshot
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            None, lambda: diff.compare(tailnets.compile_current(snapshot).reach, new.reach)
        )

    def explain(self, question: Question) -> Answer:
        """Why one reaches the other, or does not."""
        snapshot, compiled = self._ledger.snapshot, self._compiled()
        record = accounts.find_node(snapshot, question.src)
        src, dst = self._placed(snapshot, question.src), self._destination(snapshot, question.dst)
        try:
            protocols = parse_protocol(question.protocol)
        except ValueError as error:
            raise ConfigError(f"{question.protocol!r} is no protocol: {error}.") from error
        port = question.port or None
        explanation = explain.explain(src, dst, compiled.reach, port=port, protocols=protocols)
        nodes = [record]
        if isinstance(dst, Placed):
            nodes.append(snapshot.nodes[dst.node.id])
        now_s = self._clock.wall_s()
        notes = [
            f"The key of {node.name} has expired: it is cut off until it logs in."
            for node in nodes
            if node.expired(now_s)
        ]
        if isinstance(dst, Placed) and snapshot.nodes[dst.node.id].hostinfo.shields_up:
            notes.append(f"{nodes[-1].name} has its shields up: it lets nobody in.")
        return Answer(explanation, self._read(snapshot.policy), tuple(notes))

    def _placed(self, snapshot: Snapshot, name: str) -> Placed:
        node = accounts.find_node(snapshot, name)
        placed = self._compiled().members.get(node.id)
        if placed is None:
            raise StateError(f"{node.name} is not authorized yet, so no rule is about it.")
        return placed

    def _destination(self, snapshot: Snapshot, name: str) -> Placed | Endpoint:
        try:
            return self._placed(snapshot, name)
        except StateError:
            try:
                address = parse_address(name.strip("[]"))
            except WireError:
                pass
            else:
                return Endpoint(address, holder(address, self._compiled().reach))
            raise

    def _read(self, policy: PolicyRecord) -> Document:
        if self._document is None or self._document[0] != policy.id:
            self._document = (policy.id, Document.parse(policy.text))
        return self._document[1]


def _tested(snapshot: Snapshot) -> CompiledPolicy:
    compiled = tailnets.compile_current(snapshot)
    run_tests(Document.parse(snapshot.policy.text), compiled)
    return compiled
