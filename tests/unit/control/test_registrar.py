"""Registration: keys, logins, logout, names, addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps

import msgspec
import pytest

from buri.control.mapper import encode
from buri.core.errors import StateError, SystemFault, WireError
from buri.core.keys import NodePublic
from buri.testing.controlworld import FakeCommitLog, Machine, World
from buri.wire.tailcfg.register import LOGOUT_EXPIRY, RegisterRequest, RegisterResponse

DAY_S = 86400


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a coroutine test."""

    @wraps(test)
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 20))

    return run


@in_loop
async def test_a_key_lets_a_machine_in_as_its_users_node() -> None:
    world = World()
    machine = world.machine()
    response = await machine.register(await world.auth_key())
    assert (response.error, response.auth_url, response.machine_authorized) == ("", "", True)
    assert response.login.login_name == "alice"
    node = world.admin.node("box")
    assert (node.ipv4, node.key, node.machine) == ("100.64.0.1", machine.key, machine.machine)
    assert node.expiry_s == world.clock.wall_s() + 180 * DAY_S


@in_loop
async def test_a_single_use_key_lets_one_machine_in() -> None:
    world = World()
    key = await world.auth_key(reusable=False)
    first = world.machine()
    await first.join(key)
    response = await world.machine().register(key)
    assert response.error.startswith("auth key already used")
    assert not response.machine_authorized
    assert len(world.admin.snapshot.nodes) == 1
    again = await first.register(key)  # a container that starts again with the key it was given
    assert (again.error, again.machine_authorized) == ("", True)


@in_loop
async def test_expired_revoked_and_unknown_keys_are_told_apart() -> None:
    world = World()
    expired, revoked = await world.auth_key(lifetime_s=60.0), await world.auth_key()
    await world.admin.revoke_auth_key(revoked)
    world.clock.advance(61)
    assert (await world.machine().register(expired)).error.startswith("auth key expired")
    assert (await world.machine().register(revoked)).error.startswith("auth key revoked")
    assert (await world.machine().register("tskey-auth-x")).error.startswith("auth key not valid")


@in_loop
async def test_a_key_that_ended_is_told_apart_for_a_month_and_then_forgotten() -> None:
    world = World()
    expired, revoked = await world.auth_key(lifetime_s=60.0), await world.auth_key(lifetime_s=0.0)
    used = await world.auth_key(reusable=False, lifetime_s=0.0)
    for_ever = await world.auth_key(lifetime_s=0.0)
    await world.machine().join(used)
    await world.admin.revoke_auth_key(revoked)
    world.clock.advance(29 * DAY_S)
    assert (await world.machine().register(expired)).error.startswith("auth key expired")
    world.clock.advance(2 * DAY_S)
    assert [record.prefix for record in world.admin.snapshot.auth_keys.values()] == [for_ever.split("-")[2]]
    assert len(world.admin.snapshot.nodes) == 1
    for key in (expired, revoked, used):
        assert (await world.machine().register(key)).error.startswith("auth key not valid")


@in_loop
async def test_the_first_key_of_a_server_is_kept_while_it_lasts_and_then_replaced() -> None:
    world = World()
    _, first = await world.admin.first_auth_key("", "owner", lifetime_s=3600.0)
    world.clock.advance(1000)
    record, again = await world.admin.first_auth_key(f"{first}\n", "other", lifetime_s=3600.0)
    assert (again, record.expires_s) == (first, world.clock.wall_s() + 2600)
    world.clock.advance(1000)
    _, second = await world.admin.first_auth_key(first, "other", lifetime_s=3600.0)
    assert second != first
    assert [user.name for user in world.admin.snapshot.users.values()] == ["owner"]
    assert [record.prefix for record in world.admin.snapshot.auth_keys.values()] == [second.split("-")[2]]
    _, third = await world.admin.first_auth_key("not a key", "other", lifetime_s=3600.0)
    assert third != second


@in_loop
async def test_two_machines_racing_for_a_single_use_key_get_one_node() -> None:
    journal = FakeCommitLog()
    world = World(journal=journal)
    key = await world.auth_key(reusable=False)
    journal.held = True
    first, second = world.machine(), world.machine()
    tasks = [asyncio.ensure_future(machine.register(key)) for machine in (first, second)]
    await asyncio.sleep(0)
    journal.release()
    answers = await asyncio.gather(*tasks)
    assert sorted(bool(answer.error) for answer in answers) == [False, True]


@in_loop
async def test_a_tagged_key_makes_tagged_nodes_that_do_not_expire() -> None:
    world = World()
    key = await world.auth_key(user="", tags=["tag:ci"])
    machine = world.machine()
    response = await machine.register(key)
    assert response.login.login_name == "tagged-devices"
    node = world.admin.node("box")
    assert (node.user_id, node.tags, node.expiry_s) == (None, ("tag:ci",), 0)


@in_loop
async def test_tags_that_a_key_does_not_grant_are_refused() -> None:
    world = World()
    machine = world.machine()
    machine.hostinfo.request_tags = ["tag:prod"]
    for key in (await world.auth_key(), await world.auth_key(user="", tags=["tag:ci"])):
        assert "requested tags tag:prod are not permitted" in (await machine.register(key)).error
    assert "requested tags" in (await machine.register()).error


@in_loop
async def test_a_machine_that_comes_back_keeps_id_addresses_and_name() -> None:
    world = World()
    key = await world.auth_key()
    machine = world.machine()
    node_id = await machine.join(key)
    before = world.admin.snapshot.nodes[node_id]
    machine.new_key()
    assert await machine.join(key) == node_id
    after = world.admin.snapshot.nodes[node_id]
    assert (after.ipv4, after.ipv6, after.name, after.stable_id) == (
        before.ipv4,
        before.ipv6,
        before.name,
        before.stable_id,
    )
    assert after.key != before.key
    assert world.admin.snapshot.node_of_key(before.key) is None


@in_loop
async def test_another_users_key_makes_another_node_of_the_machine() -> None:
    world = World()
    machine = world.machine()
    first = await machine.join(await world.auth_key("alice"))
    machine.new_key()
    second = await machine.join(await world.auth_key("bob"))
    assert first != second
    assert len(world.admin.snapshot.nodes) == 2
    machine.new_key()
    assert await machine.join(await world.auth_key("alice")) == first


@in_loop
async def test_a_node_turns_from_personal_to_tagged_and_back() -> None:
    world = World()
    machine = world.machine()
    node_id = await machine.join(await world.auth_key())
    machine.new_key()
    assert await machine.join(await world.auth_key(user="", tags=["tag:ci"])) == node_id
    assert world.admin.snapshot.nodes[node_id].user_id is None
    machine.new_key()
    assert await machine.join(await world.auth_key()) == node_id
    assert world.admin.snapshot.nodes[node_id].tags == ()


@in_loop
async def test_nobody_takes_another_machines_node_key() -> None:
    world = World()
    key = await world.auth_key()
    owner, thief = world.machine(), world.machine()
    await owner.join(key)
    thief.key = owner.key
    assert "belongs to another machine" in (await thief.register(key)).error
    assert world.admin.node("box").machine == owner.machine


@in_loop
async def test_without_a_key_the_node_waits_until_an_administrator_approves() -> None:
    world = World()
    await world.admin.create_user("alice")
    machine = world.machine()
    url = (await machine.register()).auth_url
    assert url.startswith("http://10.77.0.1:8080/register/")
    code = url.rpartition("/")[2]
    pending = world.coordinator.pending_login(code)
    assert pending is not None
    assert (pending.hostname, pending.node_key) == ("box", machine.key)
    follow_up = asyncio.ensure_future(machine.register(followup=url))
    await asyncio.sleep(0)
    assert not follow_up.done()
    await world.admin.approve(code, "alice")
    response = await follow_up
    assert (response.auth_url, response.machine_authorized, response.login.login_name) == ("", True, "alice")
    joined = world.coordinator.pending_login(code)  # whoever looks at its page again sees how it went
    assert joined is not None
    assert (joined.approved, joined.node_name) == (True, "box")
    with pytest.raises(StateError):
        await world.admin.approve(code, "alice")
    repeated = await machine.register(followup=url)  # the answer was lost on the way
    assert repeated.machine_authorized


@in_loop
async def test_a_rejected_login_ends_with_a_word() -> None:
    world = World()
    machine = world.machine()
    url = (await machine.register()).auth_url
    follow_up = asyncio.ensure_future(machine.register(followup=url))
    await asyncio.sleep(0)
    world.admin.reject(url.rpartition("/")[2])
    assert "refused the login" in (await follow_up).error


@in_loop
async def test_a_login_survives_the_servers_restart() -> None:
    machine_url = ""
    old = World()
    machine = old.machine()
    machine_url = (await machine.register()).auth_url
    world = machine.world = World()
    await world.admin.create_user("alice")
    follow_up = asyncio.ensure_future(machine.register(followup=machine_url))
    await asyncio.sleep(0)
    await world.admin.approve(machine_url.rpartition("/")[2], "alice")
    assert (await follow_up).machine_authorized


@in_loop
async def test_a_stolen_login_link_helps_nobody() -> None:
    world = World()
    machine, thief = world.machine(), world.machine()
    url = (await machine.register()).auth_url
    assert "another machine" in (await thief.register(followup=url)).error
    thief.key = machine.key
    assert "another machine" in (await thief.register(followup=url)).error


@in_loop
async def test_a_code_is_good_for_an_hour() -> None:
    world = World()
    await world.admin.create_user("alice")
    code = (await world.machine().register()).auth_url.rpartition("/")[2]
    world.clock.advance(3600)
    assert world.coordinator.pending_login(code) is None
    with pytest.raises(StateError, match="No login waits"):
        await world.admin.approve(code, "alice")


@in_loop
async def test_a_forgotten_login_is_told_that_it_is_over() -> None:
    world = World()
    machine = world.machine()
    url = (await machine.register()).auth_url
    follow_up = asyncio.ensure_future(machine.register(followup=url))
    await asyncio.sleep(0)
    world.clock.advance(3602)
    assert "login is over" in (await follow_up).error


@in_loop
async def test_logout_expires_a_node_and_removes_an_ephemeral_one() -> None:
    world = World()
    lasting, passing = world.machine("lasting"), world.machine("passing")
    await lasting.join(await world.auth_key())
    await passing.join(await world.auth_key(ephemeral=True))
    for machine in (lasting, passing):
        assert (await machine.register(expiry=LOGOUT_EXPIRY)).error == ""
    (left,) = world.admin.snapshot.nodes.values()
    assert left.name == "lasting"
    assert left.expired(world.clock.wall_s())
    assert (await lasting.register()).node_key_expired


@in_loop
async def test_an_expired_key_asks_for_a_fresh_one_and_keeps_the_node() -> None:
    world = World(key_expiry_s=60.0)
    machine = world.machine()
    key = await world.auth_key()
    node_id = await machine.join(key)
    assert not (await machine.register()).node_key_expired
    world.clock.advance(61)
    assert (await machine.register()).node_key_expired
    old = machine.key
    machine.new_key()
    assert (await machine.register(old_node_key=str(old))).auth_url
    assert await machine.join(key) == node_id


@in_loop
async def test_a_node_may_bring_its_expiry_nearer_but_not_push_it_away() -> None:
    world = World()
    machine = world.machine()
    node_id = await machine.join(await world.auth_key())
    soon, late = (encode.seconds(world.clock.wall_s() + days * DAY_S) for days in (1, 900))
    await machine.register(expiry=soon)
    assert world.admin.snapshot.nodes[node_id].expiry_s == world.clock.wall_s() + DAY_S
    await machine.register(expiry=late)
    assert world.admin.snapshot.nodes[node_id].expiry_s == world.clock.wall_s() + DAY_S


@in_loop
async def test_names_follow_the_host_unless_an_administrator_chose() -> None:
    world = World()
    key = await world.auth_key()
    first, second = world.machine("box"), world.machine("box")
    first_id, second_id = await first.join(key), await second.join(key)
    names = world.admin.snapshot.nodes
    assert (names[first_id].name, names[second_id].name) == ("box", "box-1")
    first.hostinfo = msgspec.structs.replace(first.hostinfo, hostname="desk")
    await first.register(key)
    assert world.admin.snapshot.nodes[first_id].name == "desk"
    await world.admin.rename_node("desk", "printer")
    first.hostinfo = msgspec.structs.replace(first.hostinfo, hostname="other")
    await first.register(key)
    assert world.admin.snapshot.nodes[first_id].name == "printer"
    with pytest.raises(StateError, match="already"):
        await world.admin.rename_node("box-1", "printer")


@in_loop
async def test_no_address_comes_twice_even_after_deletion() -> None:
    world = World()
    key = await world.auth_key()
    given: set[str | int] = set()
    for _ in range(20):
        node_id = await world.machine().join(key)
        node = world.admin.snapshot.nodes[node_id]
        assert not given & {node.ipv4, node.ipv6, node.id}
        given |= {node.ipv4, node.ipv6, node.id}
        await world.admin.delete_node(str(node_id))


@in_loop
async def test_a_request_without_a_node_key_is_malformed() -> None:
    world = World()
    with pytest.raises(WireError, match="NodeKey"):
        await world.coordinator.register(world.machine().machine, RegisterRequest(node_key=str(NodePublic.zero())))
    with pytest.raises(WireError, match="Expiry"):
        await world.machine().register(expiry="yesterday")
    machine = world.machine()
    machine.hostinfo.env = "x" * 100_000
    with pytest.raises(WireError, match="too large"):
        await machine.register()


@in_loop
async def test_a_failing_store_refuses_and_forgets() -> None:
    journal = FakeCommitLog()
    world = World(journal=journal)
    key = await world.auth_key()
    journal.fail_with = SystemFault("The disk is full.")
    response = await world.machine().register(key)
    assert "The disk is full." in response.error
    assert not response.machine_authorized
    journal.fail_with = None
    assert await world.machine().join(key) == 1


async def waits(world: World, machine: Machine, old: NodePublic, url: str) -> asyncio.Task[RegisterResponse]:
    """A follow-up under way, as a client's that a person should open `url` for."""
    task = asyncio.create_task(machine.register(followup=url, old_node_key=str(old)))
    await asyncio.sleep(0)
    return task


@in_loop
async def test_a_restarted_node_whose_key_ended_is_back_when_its_end_is_pushed_away() -> None:
    world = World()
    machine = world.machine("home")
    await machine.join(await world.auth_key())
    before = await world.admin.expire_node("home", None)
    old, machine.key = machine.key, world.machine().key  # the new key that the restarted node made
    url = (await machine.register(old_node_key=str(old))).auth_url
    waiting = await waits(world, machine, old, url)
    extended = await world.admin.extend_expiry("home", 90 * DAY_S)
    response = await waiting
    assert (response.error, response.auth_url, response.machine_authorized) == ("", "", True)
    after = world.admin.node("home")
    assert (after.id, after.ipv4, after.key) == (before.id, before.ipv4, machine.key)
    assert after.expiry_s == extended.expiry_s == world.clock.wall_s() + 90 * DAY_S
    assert not world.admin.pending_logins()


@in_loop
async def test_an_end_pushed_away_lets_in_neither_another_machine_nor_a_login_of_a_live_node() -> None:
    world = World()
    home, thief = world.machine("home"), world.machine("thief")
    await home.join(await world.auth_key())
    url = (await thief.register(old_node_key=str(home.key))).auth_url
    await world.admin.expire_node("home", None)
    await world.admin.disable_expiry("home")
    assert [login.hostname for login in world.admin.pending_logins()] == ["thief"]
    assert url.endswith(world.admin.pending_logins()[0].code)

    old, home.key = home.key, world.machine().key  # a person signs in anew on a node that is well
    await home.register(old_node_key=str(old))
    await world.admin.extend_expiry("home", DAY_S)
    assert {login.hostname for login in world.admin.pending_logins()} == {"home", "thief"}
