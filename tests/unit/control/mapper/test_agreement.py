"""What nodes are told and what `explain` says never contradict one another, whatever policies and changes came before."""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buri.control.policies import Question
from buri.testing.controlworld import Machine, Netmap, World
from unit.policy.worlds import EXITS, PATIENT, SUBNETS, TAGS, USERS, policies

PORTS = (22, 80, 9999)
TCP = 6
APPROVERS = {
    "routes": {"10.0.0.0/8": ["autogroup:member", "tag:router"], "fd00::/16": ["tag:router"]},
    "exitNode": ["tag:a", "autogroup:admin"],
}
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("policy"), policies()),
        st.tuples(st.just("tag"), st.integers(0, 5), st.sampled_from(TAGS)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("join"), st.integers(0, 2)),
        st.tuples(st.just("routes"), st.integers(0, 5), st.lists(st.sampled_from((*SUBNETS, *EXITS)), max_size=2)),
        st.tuples(st.just("read"), st.integers(0, 5)),
    ),
    min_size=1,
    max_size=8,
)


def holds(word: str, address: str) -> bool:
    """Whether a word of a filter rule holds an address, as a client reads it."""
    if word == "*":
        return True
    one = ip_address(address)
    if "-" in word:
        first, last = map(ip_address, word.split("-"))
        return first.version == one.version and int(first) <= int(one) <= int(last)
    return one in ip_network(word)


class Told:
    """A node, and what it was told."""

    def __init__(self, machine: Machine, netmap: Netmap) -> None:
        self.machine = machine
        self.netmap = netmap
        self.id = machine.node_id()

    @property
    def addresses(self) -> list[str]:
        return [text.partition("/")[0] for text in self.netmap.node["Addresses"]]

    def lets_in(self, source: str, port: int) -> bool:
        rules = [rule for rules in self.netmap.filters.values() for rule in rules]
        return any(
            (not rule.get("IPProto") or TCP in rule["IPProto"])
            and any(holds(word, source) for word in rule.get("SrcIPs") or ())
            and any(
                holds(to["IP"], address) and to["Ports"]["First"] <= port <= to["Ports"]["Last"]
                for to in rule.get("DstPorts") or ()
                for address in self.addresses
                if (":" in address) == (":" in source)
            )
            for rule in rules
        )


class Tailnet:
    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: list[Told] = []

    async def up(self) -> None:
        for user in USERS:
            await self.world.admin.create_user(user.login)
            await self.world.admin.grant_role(user.login, user.role)
        for number in range(5):
            await self.join(number % 3)

    async def join(self, user: int) -> None:
        machine = self.world.machine()
        await machine.join(await self.world.auth_key(USERS[user].login))
        netmap = await machine.open()
        await netmap.read_all()
        self.nodes.append(Told(machine, netmap))

    async def change(self, kind: str, *facts: Any) -> None:
        if kind == "policy":
            text = json.dumps(json.loads(facts[0]) | {"autoApprovers": APPROVERS})
            await self.world.coordinator.policies.set(text, "test")
        elif kind == "join":
            await self.join(facts[0])
        elif self.nodes:
            told = self.nodes[facts[0] % len(self.nodes)]
            match kind:
                case "tag":
                    await self.world.admin.tag_node(str(told.id), [facts[1]])
                case "leave":
                    await self.world.admin.delete_node(str(told.id))
                    self.nodes.remove(told)
                case "routes":
                    told.machine.advertise(*facts[1])
                    await told.machine.register()
                case "read":
                    await told.netmap.read_all()

    async def check(self) -> None:
        for told in self.nodes:
            try:
                await told.netmap.read_all()
            except StopAsyncIteration:  # it saw the last one go: a client opens anew
                told.netmap = await told.machine.open()
                await told.netmap.read_all()
        for src in self.nodes:
            for dst in self.nodes:
                if src is not dst:
                    self.check_pair(src, dst)

    def check_pair(self, src: Told, dst: Told) -> None:
        sees = dst.id in src.netmap.peers
        assert sees == (src.id in dst.netmap.peers), "sight is mutual"
        for port in PORTS:
            question = Question(str(src.id), str(dst.id), port, "tcp")
            said = self.world.coordinator.policies.explain(question).explanation
            let_in = any(dst.lets_in(address, port) for address in src.addresses)
            assert said.allowed == let_in, (src.machine.hostinfo, dst.machine.hostinfo, port, said)
            if let_in:
                assert sees, "who may send to a node must know of it"
        for peer in src.netmap.peers.values():
            routes = set(peer["AllowedIPs"]) - set(peer["Addresses"])
            carrier = next(told for told in self.nodes if told.id == peer["ID"])
            assert routes <= set(carrier.netmap.node["AllowedIPs"]), "a route leads to who may carry it"


@settings(PATIENT, max_examples=120)
@given(policies(), CHANGES)
@pytest.mark.slow
def test_what_nodes_are_told_is_what_explain_says(policy: str, changes: list[tuple[Any, ...]]) -> None:
    async def scenario() -> None:
        tailnet = Tailnet(World())
        await tailnet.up()
        await tailnet.change("policy", policy)
        for change in changes:
            await tailnet.change(*change)
        await tailnet.check()

    asyncio.run(scenario())
