"""Who may give which tag, by the policy's tagOwners; and nodes that ask for tags."""

from __future__ import annotations

import asyncio

import pytest

from buri.control.domain import tags
from buri.control.snapshot import UserRecord
from buri.core.errors import StateError
from buri.policy.document import parse
from buri.policy.tailnet import Role
from buri.testing.controlworld import World

POLICY = """{
    "groups": {"group:ops": ["bob@", "carol@example.com"]},
    "tagOwners": {
        "tag:prod": ["group:ops"],
        "tag:mine": ["alice@"],
        "tag:admins": ["autogroup:admin"],
        "tag:any": ["autogroup:member"],
        "tag:child": ["tag:mine"],
        "tag:loop": ["tag:pool"],
        "tag:pool": ["tag:loop"],
        "tag:none": [],
    },
    "acls": [],
}"""


def user(name: str, role: Role = "member") -> UserRecord:
    return UserRecord(id=1, name=name, display_name=name, created_s=0.0, role=role)


@pytest.mark.parametrize(
    ("who", "owned"),
    [
        (user("alice"), {"tag:mine", "tag:any", "tag:child"}),
        (user("bob"), {"tag:prod", "tag:any"}),
        (user("carol@example.com", "admin"), {"tag:prod", "tag:admins", "tag:any"}),
        (user("dave", "owner"), {"tag:admins", "tag:any"}),
    ],
)
def test_a_user_owns_tags_by_name_group_role_and_by_owning_an_owner(who: UserRecord, owned: set[str]) -> None:
    policy = parse(POLICY)
    assert {tag for tag in (*policy.tag_owners, "tag:unknown") if tags.owns(policy, who, tag)} == owned


def test_a_node_becomes_the_tags_that_its_person_owns() -> None:
    async def scenario() -> None:
        world = World()
        alice, bob = await world.auth_key("alice"), await world.auth_key("bob")
        await world.coordinator.policies.set(POLICY, "test")
        machine = world.machine()
        machine.hostinfo.request_tags = ["tag:mine"]
        assert "does not name bob as their owner" in (await machine.register(bob)).error
        node_id = await machine.join(alice)
        node = world.admin.snapshot.nodes[node_id]
        assert (node.user_id, node.tags, node.expiry_s) == (None, ("tag:mine",), 0.0)

    asyncio.run(scenario())


def test_a_login_that_asks_for_tags_needs_their_owner() -> None:
    async def scenario() -> None:
        world = World()
        for name in ("alice", "bob"):
            await world.admin.create_user(name)
        await world.coordinator.policies.set(POLICY, "test")
        machine = world.machine()
        machine.hostinfo.request_tags = ["tag:prod"]
        url = (await machine.register()).auth_url
        with pytest.raises(StateError, match="tag:prod are not permitted"):
            await world.admin.approve(url, "alice")
        assert (await world.admin.approve(url, "bob")).tags == ("tag:prod",)

    asyncio.run(scenario())
