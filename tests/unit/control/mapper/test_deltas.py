"""What each node is told: deltas add up to the whole netmap, and cost little."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buri.control.mapper import encode, visibility
from buri.policy.compiler import PeerView
from buri.testing.controlworld import Machine, Netmap, World, derp_map, messages

OPERATIONS = (
    "join",
    "rejoin",
    "delete",
    "endpoints",
    "no endpoints",
    "home",
    "hostname",
    "rename",
    "expire",
    "revive",
    "soon",
    "open",
    "close",
    "read",
    "time",
    "user",
    "relays",
    "policy",
    "policy",
    "tag",
    "routes",
    "role",
)
POLICIES = (
    "{}",
    """{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
        "ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"]}]}""",
    """{"acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*", "tag:ci:80"]}],
        "tagOwners": {"tag:ci": [], "tag:web": []}}""",
    """{"grants": [{"src": ["tag:ci"], "dst": ["tag:web", "10.1.0.0/16"], "ip": ["tcp:443"]},
                   {"src": ["autogroup:member"], "dst": ["autogroup:internet"], "ip": ["*"]},
                   {"src": ["autogroup:admin"], "dst": ["*"], "ip": ["22"], "app": {"example.com/cap/x": [{"a": 1}]}}],
        "tagOwners": {"tag:ci": [], "tag:web": []},
        "nodeAttrs": [{"target": ["tag:web"], "attr": ["disable-ipv4", "funnel"]}],
        "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:web", "autogroup:member"]}, "exitNode": ["tag:ci"]}}""",
    """{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
        "autoApprovers": {"routes": {"10.0.0.0/8": ["autogroup:member", "autogroup:tagged"]},
                          "exitNode": ["autogroup:member"]}}""",
    """{"acls": []}""",
)
STEPS = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 7), st.integers(1, 5)), min_size=6, max_size=40)


class Play:
    """Carries out a drawn sequence of things that happen to a tailnet."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.machines: list[Machine] = []
        self.netmaps: dict[int, Netmap] = {}
        self.keys: list[str] = []

    async def start(self) -> None:
        self.keys = [await self.world.auth_key("alice"), await self.world.auth_key("", tags=["tag:ci"])]
        for which in range(3):
            await self.step("join", which % 2, which)
            await self.step("open", which, 1)

    async def step(self, operation: str, which: int, value: int) -> None:
        if operation == "join":
            machine = self.world.machine(f"box{value}")
            await machine.join(self.keys[which % 2])
            self.machines.append(machine)
        elif operation == "time":
            self.world.clock.advance(value * 6.0)
        elif operation == "user":
            await self.world.admin.rename_user("1", f"alice{self.world.random.randrange(1 << 30)}")
        elif operation == "policy":
            await self.world.coordinator.policies.set(POLICIES[(which + value) % len(POLICIES)], "me")
        elif operation == "role":
            await self.world.admin.create_user(f"user{self.world.random.randrange(1 << 30)}")
            await self.world.admin.grant_role("1", "owner")
            await self.world.admin.grant_role("2", ("admin", "member")[value % 2])
        elif operation == "relays":
            self.world.coordinator.set_derp_map(derp_map(value, 900))
        elif self.machines:
            await self.step_of(self.machines[which % len(self.machines)], operation, value)

    async def step_of(self, machine: Machine, operation: str, value: int) -> None:
        node = str(machine.node_id())
        admin = self.world.admin
        match operation:
            case "rejoin":
                machine.new_key()
                await machine.join(self.keys[value % 2])
            case "delete":
                await admin.delete_node(node)
                self.machines.remove(machine)
                self.netmaps.pop(int(node), None)
            case "endpoints":
                await machine.update([f"192.0.2.{value}:41641"])
            case "no endpoints":
                await machine.update([])
            case "home":
                await machine.update(["192.0.2.9:1"], derp=value)
            case "hostname":
                machine.hostinfo = msgspec.structs.replace(machine.hostinfo, hostname=f"desk{value}")
                await machine.register()
            case "rename":
                await admin.rename_node(node, f"chosen-{value}-{node}")
            case "expire":
                await admin.expire_node(node, None)
            case "revive":
                await admin.expire_node(node, 0.0)
            case "soon":
                await admin.expire_node(node, self.world.clock.wall_s() + value * 5)
            case "tag":
                await admin.tag_node(node, [("tag:ci",), ("tag:web",), ("tag:ci", "tag:web")][value % 3])
            case "routes":
                machine.advertise(*(["10.1.0.0/16"], ["10.1.0.0/16", "0.0.0.0/0", "::/0"], [])[value % 3])
                await machine.register()
            case "open":
                self.netmaps[int(node)] = await machine.open()
            case "close":
                if int(node) in self.netmaps:
                    self.netmaps.pop(int(node)).stream.close()
            case "read":
                await self.read(int(node))

    async def read(self, node_id: int) -> None:
        if node_id in self.netmaps:
            try:
                await self.netmaps[node_id].read_all()
            except StopAsyncIteration:
                del self.netmaps[node_id]

    async def check(self) -> int:
        """Every reader knows what a whole netmap would tell it now."""
        compared = 0
        for node_id in list(self.netmaps):
            await self.read(node_id)
            netmap = self.netmaps.get(node_id)
            node = self.world.admin.snapshot.nodes[node_id]
            if netmap is None or not visibility.has_sight(node, self.world.clock.wall_s()):
                continue
            whole = Netmap(None)
            (message,) = messages(self.world.coordinator.mapper.full_map(node_id))
            whole.apply(message)
            assert shown(netmap) == shown(whole)
            assert not netmap.strays
            for peer in netmap.peers.values():
                assert netmap.users[peer["User"]] == whole.users[peer["User"]]
            compared += 1
        return compared


# What a node says of itself is no news to it.
OWN_NEWS = ("Endpoints", "HomeDERP", "DiscoKey", "Online", "LastSeen", "Hostinfo", "Cap")


def shown(netmap: Netmap) -> dict[str, Any]:
    view = netmap.view()
    return {**view, "node": {name: value for name, value in view["node"].items() if name not in OWN_NEWS}}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, shared=st.booleans(), small_journal=st.booleans())
@pytest.mark.slow
def test_deltas_add_up_to_the_whole_netmap(
    steps: list[tuple[str, int, int]], shared: bool, small_journal: bool
) -> None:
    async def scenario() -> None:
        world = World(shared_frames=shared)
        if small_journal:
            world.coordinator.mapper.set_journal_size(4)
        play = Play(world)
        await play.start()
        for operation, which, value in steps:
            await play.step(operation, which, value)
        await play.check()

    asyncio.run(scenario())


def test_the_comparison_compares() -> None:
    async def scenario() -> None:
        play = Play(World())
        await play.start()
        for which in range(3):
            await play.step("open", which, 1)
        await play.step("endpoints", 1, 4)
        assert await play.check() == 3
        netmap = play.netmaps[1]
        netmap.peers[2]["Endpoints"] = ["192.0.2.99:9"]
        with pytest.raises(AssertionError):
            await play.check()

    asyncio.run(scenario())


async def tailnet(count: int) -> tuple[World, list[Machine], list[Netmap]]:
    """A tailnet whose nodes have all read everything."""
    world = World()
    key = await world.auth_key()
    machines = [world.machine() for _ in range(count)]
    for machine in machines:
        await machine.join(key)
        await machine.update(["192.0.2.1:41641"], derp=900)
    netmaps = [await machine.open() for machine in machines]
    for netmap in netmaps:
        await netmap.read_all()
    return world, machines, netmaps


def test_an_endpoint_change_is_a_patch_of_at_most_150_bytes() -> None:
    async def scenario() -> None:
        _, machines, netmaps = await tailnet(3)
        await machines[0].update(["203.0.113.77:41641", "[2001:db8:1:2::1234]:41641", "192.168.178.23:41641"])
        message = await netmaps[1].read()
        assert list(message) == ["PeersChangedPatch"]
        assert len(netmaps[1].raw[-1]) <= 150

    asyncio.run(scenario())


def test_changes_that_pile_up_make_one_message() -> None:
    async def scenario() -> None:
        world, machines, netmaps = await tailnet(3)
        for port in range(1, 50):
            await machines[0].update([f"203.0.113.77:{port}"])
            await machines[1].update([f"203.0.113.78:{port}"])
        newcomer = world.machine("new")
        await newcomer.join(await world.auth_key())
        before = len(netmaps[2].raw)
        message = await netmaps[2].read()
        assert len(netmaps[2].raw) == before + 1
        assert [patch["Endpoints"] for patch in message["PeersChangedPatch"]] == [
            ["203.0.113.77:49"],
            ["203.0.113.78:49"],
        ]
        assert [peer["Name"] for peer in message["PeersChanged"]] == ["new.buri.internal."]

    asyncio.run(scenario())


def test_who_came_and_went_between_two_reads_is_not_mentioned() -> None:
    async def scenario() -> None:
        world, _, netmaps = await tailnet(2)
        node_id = await world.machine().join(await world.auth_key())
        await world.admin.delete_node(str(node_id))
        assert await netmaps[0].read_all() == 0

    asyncio.run(scenario())


def test_a_peer_is_encoded_once_for_all_who_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        world, _, netmaps = await tailnet(20)
        encoded: list[int] = []
        real = encode.peer_json

        def counting(node: Any, base_domain: str, now_s: float, view: PeerView) -> bytes:
            encoded.append(node.id)
            return real(node, base_domain, now_s, view)

        monkeypatch.setattr(encode, "peer_json", counting)
        node_id = await world.machine().join(await world.auth_key())
        raw = {(await netmap.read(), netmap.raw[-1])[1] for netmap in netmaps}
        assert encoded == [node_id]
        assert len(raw) == 1

    asyncio.run(scenario())


def test_the_first_message_holds_what_a_client_needs() -> None:
    async def scenario() -> None:
        _, machines, netmaps = await tailnet(2)
        first = netmaps[0].messages[0]
        assert {"Node", "DERPMap", "Peers", "DNSConfig", "Domain", "UserProfiles", "PacketFilters"} <= set(first)
        assert first["Debug"] == {"DisableLogTail": True}
        assert first["Node"]["Key"] == str(machines[0].key)
        assert first["Node"]["Machine"] == str(machines[0].machine)
        assert "cache-network-maps" in first["Node"]["CapMap"]
        assert first["DNSConfig"] == {"Proxied": True, "Domains": ["buri.internal"]}

    asyncio.run(scenario())


@pytest.mark.parametrize("shared", [True, False])
def test_chunks_of_many_peers_make_one_text(shared: bool) -> None:
    async def scenario() -> None:
        world = World(shared_frames=shared)
        key = await world.auth_key()
        machines = [world.machine() for _ in range(200)]
        for machine in machines:
            await machine.join(key)
        netmap = await machines[150].open()
        await netmap.read()
        assert set(netmap.peers) == {machine.node_id() for machine in machines} - {machines[150].node_id()}

    asyncio.run(scenario())
