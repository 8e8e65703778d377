"""Policies in an administrator's hands: what is stored, what is refused, and what a file does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from buri.control.policies import MAX_POLICY_BYTES, Question
from buri.control.policyfile import LOOK_S, PolicyFile
from buri.control.snapshot import DEFAULT_POLICY, KEPT_POLICIES
from buri.core.errors import ConfigError, StateError, SystemFault
from buri.policy.problems import PolicyError
from buri.testing.controlworld import World

CLOSED = '{"acls": []}'
TESTED = '{"acls": [], "tests": [{"src": "alice@", "deny": ["100.64.0.1:22"]}]}'


def run(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def inside() -> None:
        await scenario(World())

    asyncio.run(inside())


def test_the_default_lets_all_reach_all_and_is_no_version() -> None:
    async def scenario(world: World) -> None:
        policies = world.coordinator.policies
        assert policies.current == DEFAULT_POLICY
        assert policies.history == (DEFAULT_POLICY,)
        await policies.set(CLOSED, "alice")
        assert [record.id for record in policies.history] == [1]
        assert policies.current.author == "alice"

    run(scenario)


def test_what_is_in_force_already_is_no_new_version() -> None:
    async def scenario(world: World) -> None:
        policies = world.coordinator.policies
        first = await policies.set(CLOSED, "alice")
        assert await policies.set(CLOSED, "bob") is first

    run(scenario)


def test_the_last_ones_are_remembered() -> None:
    async def scenario(world: World) -> None:
        policies = world.coordinator.policies
        for number in range(KEPT_POLICIES + 5):
            await policies.set(f'{{"acls": []}} // {number}', "alice")
        assert [record.id for record in policies.history] == list(range(6, KEPT_POLICIES + 6))
        last = [write for write in world.journal.written if type(write).__name__ == "PutPolicy"][-1]
        assert getattr(last, "oldest_kept", None) == 6

    run(scenario)


def test_an_edit_of_an_older_policy_is_refused_even_while_another_is_checked() -> None:
    async def scenario(world: World) -> None:
        policies = world.coordinator.policies
        etag = policies.current.etag
        done = await asyncio.gather(
            policies.set(CLOSED, "alice", if_match=etag),
            policies.set("{}", "bob", if_match=f'"{etag}"'),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, StateError) for outcome in done) == 1
        assert len(policies.history) == 1

    run(scenario)


def test_a_failing_store_leaves_the_old_policy_in_force() -> None:
    async def scenario(world: World) -> None:
        policies = world.coordinator.policies
        world.journal.fail_with = SystemFault("The disk is full.")
        with pytest.raises(SystemFault):
            await policies.set(CLOSED, "alice")
        assert policies.current == DEFAULT_POLICY
        world.journal.fail_with = None
        assert (await policies.set(CLOSED, "alice")).id == 1

    run(scenario)


def test_a_huge_policy_is_refused_before_it_is_read() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(ConfigError, match="too large"):
            await world.coordinator.policies.set(" " * MAX_POLICY_BYTES + "{}", "alice")

    run(scenario)


def test_tests_of_the_policy_in_force_are_judged_by_the_tailnet_of_now() -> None:
    async def scenario(world: World) -> None:
        policies = world.coordinator.policies
        await world.machine().join(await world.auth_key("alice"))
        await policies.set(TESTED, "alice")
        await policies.test()
        await world.admin.delete_node("1")
        with pytest.raises(PolicyError, match="nobody in this tailnet"):
            await policies.test()

    run(scenario)


def test_explain_speaks_of_what_stands_in_the_way_besides() -> None:
    async def scenario(world: World) -> None:
        machines = [world.machine(name) for name in ("one", "two")]
        machines[1].hostinfo.shields_up = True
        for machine in machines:
            await machine.join(await world.auth_key("alice"))
        answer = world.coordinator.policies.explain(Question("one", "two", 22))
        assert answer.explanation.allowed
        assert answer.notes == ("two has its shields up: it lets nobody in.",)

    run(scenario)


class FileWorld:
    """A server that takes its policy from a file."""

    def __init__(self, world: World, path: Path) -> None:
        self.world = world
        self.readings: list[asyncio.Task[None]] = []
        self.file = PolicyFile(path, world.coordinator.policies, world.clock, self._spawn)

    def _spawn(self) -> None:
        self.readings.append(asyncio.ensure_future(self.file.read_again()))

    async def look(self, times: int = 2) -> None:
        for _ in range(times):
            self.world.clock.advance(LOOK_S + 0.001)
        await asyncio.gather(*self.readings)


def test_a_file_is_followed_and_a_bad_one_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "policy.hujson"

    async def scenario(world: World) -> None:
        policies = world.coordinator.policies
        path.write_text(CLOSED)
        following = FileWorld(world, path)
        await following.file.start()
        assert policies.current.text == CLOSED
        assert policies.current.author == f"file:{path}"
        path.write_text('{"acls": [],\n  "bogus": 1}')
        await following.look()
        assert policies.current.text == CLOSED
        assert f"{path}:2:" in caplog.text
        path.unlink()
        await following.look()
        path.with_suffix(".new").write_text("{}")
        path.with_suffix(".new").rename(path)
        await following.look()
        assert policies.current.text == "{}"
        count = len(following.readings)
        await following.look(5)
        assert len(following.readings) == count, "what rests is not read again"
        with pytest.raises(StateError, match=r"takes its policy from .*policy.hujson"):
            await policies.set(CLOSED, "alice")
        following.file.close()
        path.write_text(CLOSED)
        await following.look()
        assert policies.current.text == "{}"

    with caplog.at_level(logging.INFO):
        run(scenario)


def test_a_half_written_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.hujson"

    async def scenario(world: World) -> None:
        path.write_text(CLOSED)
        following = FileWorld(world, path)
        await following.file.start()
        path.write_text("{")
        await following.look(1)
        path.write_text('{"acls": [] }')
        await following.look(1)
        assert not following.readings
        await following.look(1)
        assert world.coordinator.policies.current.text == '{"acls": [] }'
        assert len(following.readings) == 1

    run(scenario)


def test_a_server_does_not_start_open_because_its_policy_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "policy.hujson"

    async def scenario(world: World) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            await FileWorld(world, path).file.start()
        path.write_text('{"bogus": 1}')
        with pytest.raises(ConfigError, match=r"policy.hujson:1:"):
            await FileWorld(world, path).file.start()
        path.write_text(TESTED)
        await FileWorld(world, path).file.start()
        assert world.coordinator.policies.current.text == TESTED, "its tests name people who are yet to come"
        path.write_text("{")
        await FileWorld(world, path).file.start()
        assert world.coordinator.policies.current.text == TESTED, "the last good one stays"

    run(scenario)
