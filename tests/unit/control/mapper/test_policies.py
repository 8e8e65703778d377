"""A policy's change, or a node's under a policy: who hears of it, and how little."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from buri.control.snapshot import PolicyRecord
from buri.core.errors import ConfigError
from buri.testing.controlworld import Machine, Netmap, World, derp_map, empty_snapshot

OWN_AND_WEB = """{
    "tagOwners": {"tag:web": [], "tag:db": []},
    "acls": [
        {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*", "tag:web:80"]},
        {"action": "accept", "src": ["tag:web"], "dst": ["tag:db:5432"]},
    ],
}"""
ALL = """{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}"""
ROUTED = """{
    "tagOwners": {"tag:web": [], "tag:db": []},
    "acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["10.1.0.0/16:*", "tag:web:80"]}],
    "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:web"]}},
}"""


class Tailnet:
    """Two people's laptops, a web server and a database, all with open streams."""

    def __init__(self, world: World, machines: dict[str, Machine]) -> None:
        self.world = world
        self.machines = machines
        self.netmaps: dict[str, Netmap] = {}

    @classmethod
    async def up(cls, policy: str) -> Tailnet:
        world = World()
        keys = {
            "alice": await world.auth_key("alice"),
            "bob": await world.auth_key("bob"),
            "web": await world.auth_key("", tags=["tag:web"]),
            "db": await world.auth_key("", tags=["tag:db"]),
        }
        tailnet = cls(world, {name: world.machine(name) for name in keys})
        for name, key in keys.items():
            await tailnet.machines[name].join(key)
        await world.coordinator.policies.set(policy, "test")
        for name, machine in tailnet.machines.items():
            tailnet.netmaps[name] = await machine.open()
        await tailnet.news()
        return tailnet

    def node(self, name: str) -> int:
        return self.machines[name].node_id()

    async def join(self, name: str, key_of: str) -> None:
        tags = [] if key_of in ("alice", "bob") else [f"tag:{key_of}"]
        self.machines[name] = self.world.machine(name)
        await self.machines[name].join(await self.world.auth_key("" if tags else key_of, tags=tags))

    async def delete(self, name: str) -> None:
        await self.world.admin.delete_node(str(self.node(name)))
        del self.machines[name]
        self.netmaps.pop(name, None)

    async def news(self) -> dict[str, dict[str, Any]]:
        """What each is told now; one message each at most."""
        told: dict[str, dict[str, Any]] = {}
        for name, netmap in self.netmaps.items():
            before = len(netmap.messages)
            await netmap.read_all()
            if len(netmap.messages) > before:
                (told[name],) = netmap.messages[before:]
        return told

    def sees(self, name: str) -> set[str]:
        names = {machine.node_id(): known for known, machine in self.machines.items()}
        return {names[node_id] for node_id in self.netmaps[name].peers}


def play(scenario: Callable[[Tailnet], Awaitable[None]], policy: str = OWN_AND_WEB) -> None:
    async def run() -> None:
        await scenario(await Tailnet.up(policy))

    asyncio.run(run())


def names(message: dict[str, Any]) -> set[str]:
    return set(message)


def test_a_node_sees_whom_it_reaches_and_who_reaches_it() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        assert {name: tailnet.sees(name) for name in tailnet.netmaps} == {
            "alice": {"web"},
            "bob": {"web"},
            "web": {"alice", "bob", "db"},
            "db": {"web"},
        }
        profiles = {user["LoginName"] for user in tailnet.netmaps["alice"].users.values()}
        assert profiles == {"alice", "tagged-devices"}, "whose nodes are not shown stays unknown"

    play(scenario)


def test_a_new_policy_reaches_exactly_whom_it_concerns() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        narrowed = OWN_AND_WEB.replace('["tag:web"], "dst": ["tag:db:5432"]', '["tag:web"], "dst": ["tag:db:5433"]')
        await tailnet.world.coordinator.policies.set(narrowed, "test")
        told = await tailnet.news()
        assert set(told) == {"db"}, "only the database's filter is another"
        assert names(told["db"]) == {"PacketFilters"}
        assert sorted(map(bool, told["db"]["PacketFilters"].values())) == [False, True], "one rule goes, one comes"

    play(scenario)


def test_peers_come_and_go_with_the_policy() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        await tailnet.world.coordinator.policies.set(ALL, "test")
        told = await tailnet.news()
        assert names(told["alice"]) == {"PeersChanged", "PacketFilters", "UserProfiles"}
        assert tailnet.sees("alice") == {"bob", "web", "db"}
        assert "bob" in {user["LoginName"] for user in tailnet.netmaps["alice"].users.values()}
        await tailnet.world.coordinator.policies.set(OWN_AND_WEB, "test")
        told = await tailnet.news()
        assert names(told["alice"]) == {"PeersRemoved", "PacketFilters"}
        assert set(told["alice"]["PeersRemoved"]) == {tailnet.node("bob"), tailnet.node("db")}
        assert tailnet.sees("web") == {"alice", "bob", "db"}
        await tailnet.world.coordinator.policies.set('{"acls": []}', "test")
        told = await tailnet.news()
        assert all(not netmap.peers for netmap in tailnet.netmaps.values())
        assert set(told["db"]["PacketFilters"].values()) == {None}

    play(scenario)


def test_a_changed_peer_is_news_to_those_alone_who_see_it() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        await tailnet.machines["db"].update(["192.0.2.7:1"])
        told = await tailnet.news()
        assert set(told) == {"web"}
        assert names(told["web"]) == {"PeersChangedPatch"}
        await tailnet.world.admin.rename_node(str(tailnet.node("db")), "cellar")
        assert set(await tailnet.news()) == {"db", "web"}
        assert tailnet.sees("alice") == {"web"}

    play(scenario)


def test_a_new_tag_moves_a_node_into_other_rules_live() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        await tailnet.world.admin.tag_node(str(tailnet.node("db")), ["tag:web"])
        told = await tailnet.news()
        assert tailnet.sees("alice") == {"web", "db"}
        assert names(told["alice"]) == {"PeersChanged"}, "nobody new reaches her: her filter stays"
        assert tailnet.sees("web") == {"alice", "bob"}
        assert told["web"]["PeersRemoved"] == [tailnet.node("db")]
        assert names(told["db"]) >= {"Node", "PacketFilters", "PeersChanged", "PeersRemoved"}

    play(scenario)


def test_a_node_that_takes_the_place_of_another_is_not_taken_for_it() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        web = tailnet.node("web")
        await tailnet.delete("web")
        await tailnet.join("second", "web")  # whoever keeps places by number has the old one's now
        await tailnet.join("third", "alice")
        told = await tailnet.news()
        assert told["alice"]["PeersRemoved"] == [web]
        assert {peer["ID"] for peer in told["alice"]["PeersChanged"]} == {
            tailnet.node("second"),
            tailnet.node("third"),
        }
        assert told["db"]["PeersRemoved"] == [web]
        assert tailnet.sees("db") == {"second"}
        assert tailnet.sees("bob") == {"second"}
        await tailnet.delete("alice")
        await tailnet.delete("second")  # the database saw it, and does not see who stands there next
        await tailnet.join("fourth", "bob")
        await tailnet.news()
        assert tailnet.sees("bob") == {"fourth"}
        assert not any(netmap.strays for netmap in tailnet.netmaps.values())

    play(scenario)


def test_a_route_is_given_to_whom_the_policy_lets_through() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        web = tailnet.machines["web"]
        web.advertise("10.1.2.0/24", "10.9.0.0/16", "192.168.0.0/16", "no prefix")
        await web.register()
        told = await tailnet.news()
        (seen,) = told["alice"]["PeersChanged"]
        assert seen["PrimaryRoutes"] == ["10.1.2.0/24"]
        assert "10.1.2.0/24" in seen["AllowedIPs"]
        assert "10.9.0.0/16" not in seen["AllowedIPs"], "approved, but alice has no rule for it"
        assert set(told["web"]["Node"]["AllowedIPs"]) >= {"10.1.2.0/24", "10.9.0.0/16"}
        assert "192.168.0.0/16" not in told["web"]["Node"]["AllowedIPs"], "nobody approves it"
        web.advertise()
        await web.register()
        told = await tailnet.news()
        assert "PrimaryRoutes" not in told["alice"]["PeersChanged"][0]

    play(scenario, ROUTED)


def test_another_router_takes_over_while_the_first_is_away() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        await tailnet.join("second", "web")
        for name in ("web", "second"):
            tailnet.machines[name].advertise("10.1.2.0/24")
            await tailnet.machines[name].register()
        tailnet.netmaps["second"] = await tailnet.machines["second"].open()
        await tailnet.news()

        def carrier() -> set[int]:
            return {i for i, peer in tailnet.netmaps["alice"].peers.items() if "PrimaryRoutes" in peer}

        assert carrier() == {tailnet.node("web")}
        tailnet.netmaps.pop("web").stream.close()
        tailnet.world.clock.advance(30)
        await tailnet.news()
        assert carrier() == {tailnet.node("second")}

    play(scenario, ROUTED)


def test_a_node_attribute_takes_ipv4_away_live() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        attributes = '"nodeAttrs": [{"target": ["tag:web"], "attr": ["disable-ipv4"]}], "acls"'
        await tailnet.world.coordinator.policies.set(OWN_AND_WEB.replace('"acls"', attributes), "test")
        told = await tailnet.news()
        assert all(":" in address for address in told["web"]["Node"]["Addresses"])
        (seen,) = told["alice"]["PeersChanged"]
        assert seen["Addresses"] == told["web"]["Node"]["Addresses"]
        for peer in tailnet.netmaps["web"].peers.values():
            assert all(":" in address for address in peer["Addresses"]), "it has no IPv4 to talk from"
        assert len(tailnet.netmaps["bob"].node["Addresses"]) == 2

    play(scenario)


def test_ssh_rules_follow_the_policy() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        assert tailnet.netmaps["web"].ssh == {"rules": []}
        ssh = '"ssh": [{"action": "accept", "src": ["alice@"], "dst": ["tag:web"], "users": ["root"]}], "acls"'
        await tailnet.world.coordinator.policies.set(OWN_AND_WEB.replace('"acls"', ssh), "test")
        told = await tailnet.news()
        assert set(told) == {"web"}
        assert names(told["web"]) == {"SSHPolicy", "Node"}
        assert len(told["web"]["SSHPolicy"]["rules"]) == 1
        assert "https://tailscale.com/cap/ssh" in told["web"]["Node"]["CapMap"]
        await tailnet.world.coordinator.policies.set(OWN_AND_WEB, "test")
        assert (await tailnet.news())["web"]["SSHPolicy"] == {"rules": []}

    play(scenario)


def test_the_policy_adds_and_removes_relays() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        policies = tailnet.world.coordinator.policies
        region = '{"RegionID": 7, "Nodes": [{"Name": "7a", "RegionID": 7, "HostName": "seven.example"}]}'
        await policies.set(
            OWN_AND_WEB.replace('"acls"', f'"derpMap": {{"Regions": {{"7": {region}}}}}, "acls"'), "test"
        )
        told = await tailnet.news()
        assert all(names(message) == {"DERPMap"} for message in told.values())
        assert set(told["bob"]["DERPMap"]["Regions"]) == {"7", "900"}
        tailnet.world.coordinator.set_derp_map(derp_map(901))
        assert set((await tailnet.news())["web"]["DERPMap"]["Regions"]) == {"7", "901"}
        with pytest.raises(ConfigError, match="leaves no relay"):
            await policies.set('{"derpMap": {"OmitDefaultRegions": true, "Regions": {}}}', "test")
        await policies.set(OWN_AND_WEB, "test")
        assert set((await tailnet.news())["web"]["DERPMap"]["Regions"]) == {"901"}

    play(scenario)


def test_a_role_is_part_of_the_policy() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        assert "bob" in tailnet.sees("web")
        admins = OWN_AND_WEB.replace("autogroup:member", "autogroup:admin")
        await tailnet.world.coordinator.policies.set(admins, "test")
        await tailnet.news()
        assert tailnet.sees("web") == {"alice", "db"}, "alice was first, so the tailnet is hers"
        await tailnet.world.admin.grant_role("bob", "admin")
        await tailnet.news()
        assert tailnet.sees("web") == {"alice", "bob", "db"}

    play(scenario)


def test_a_stored_policy_that_is_not_understood_lets_nothing_pass(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        old = PolicyRecord(id=3, text='{"from-another-version": 1}', author="", created_s=1.0)
        world = World(snapshot=empty_snapshot().with_policy(old))
        assert "policy 3 is not understood" in caplog.text
        first, second = world.machine("one"), world.machine("two")
        for machine in (first, second):
            await machine.join(await world.auth_key())
        netmap = await first.open()
        await netmap.read_all()
        assert not netmap.peers
        assert not netmap.filters
        await world.coordinator.policies.set(ALL, "test")
        await netmap.read_all()
        assert set(netmap.peers) == {second.node_id()}

    asyncio.run(scenario())


def test_a_policy_that_fails_leaves_the_old_one_in_force() -> None:
    async def scenario(tailnet: Tailnet) -> None:
        policies = tailnet.world.coordinator.policies
        before = policies.current
        for bad in ("{", '{"acls": [{"action": "deny"}], "bogus": 1}', ALL.replace("}]}", '}], "tests": [{}]}')):
            with pytest.raises(ConfigError, match="line 1"):
                await policies.set(bad, "test")
        assert policies.current is before
        assert await tailnet.news() == {}

    play(scenario)
