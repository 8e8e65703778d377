"""Random topologies, faults and traffic; what must hold in each. A failing seed is in the test's name."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from random import Random

import pytest

from buri.testing.nat import Dependence, NatModel
from buri.testing.simnode import SimNode
from buri.testing.simworld import Conversation, Home, World

LONGEST_SILENCE_S = 6.0
RELAY_SILENCE_S = 12.0  # a relay is found dead by its connection, and another has to become home


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_every_pair_talks_no_path_stays_on_a_black_hole_and_the_rate_is_bounded(seed: int) -> None:
    dice = Random(seed)
    world = World(seed, loss=dice.choice([0.0, 0.0, 0.02]))
    for region in range(1, dice.randint(2, 3) + 1):
        world.add_relay(region, distance_s=dice.uniform(0.005, 0.06))
    homes = [world.add_home(random_nat(dice), distance_s=dice.uniform(0.002, 0.04)) for _ in range(dice.randint(2, 4))]
    for index in range(dice.randint(3, 5)):
        world.add_node(f"n{index}", dice.choice([*homes, None]))
    world.settle()
    talks = [Conversation(one, other, every_s=0.5) for one, other in combinations(world.nodes, 2)]
    world.timeline.run(20)

    for _ in range(3):
        longest_s = happen(world, homes, dice)
        start, sent = world.timeline.now, [node.host.sent for node in world.nodes]
        world.timeline.run(45)
        end = world.timeline.now
        for talk in talks:
            silence = talk.longest_silence_s(start, end - 2)
            assert silence < longest_s, (world, talk.one.name, talk.other.name, silence)
            lost = talk.lost_between(end - 20, end - 2)
            assert len(lost) <= (0 if world.internet.loss == 0 else 8), (world, talk.one.name, talk.other.name, lost)
        for node, before in zip(world.nodes, sent, strict=True):
            assert (node.host.sent - before) / 45 < 25 * len(world.nodes), (world, node.name)
        for one, other in combinations(world.nodes, 2):
            assert_no_black_hole(world, one, other)
        world.internet.heal()
        for relay in world.relays.values():
            relay.start()


def random_nat(dice: Random) -> NatModel:
    mapping = dice.choice(list(Dependence))
    # No NAT is known that maps by destination and yet lets anybody in by each of these mappings.
    filters = [kind for kind in Dependence if mapping is Dependence.NONE or kind is not Dependence.NONE]
    return NatModel(
        mapping=mapping,
        filtering=dice.choice(filters),
        hairpin=dice.random() < 0.3,
        timeout_s=dice.choice([20.0, 60.0, 180.0]),
    )


def happen(world: World, homes: list[Home], dice: Random) -> float:
    """One fault; returns the longest silence it may cause a conversation."""
    home = dice.choice(homes)
    match dice.choice(["swallow", "forget", "move", "jump", "relay", "roam", "nothing"]):
        case "swallow":
            other = dice.choice(homes)
            world.internet.swallow(home.nat.address, other.nat.address)
        case "forget":
            home.nat.forget()
        case "move":
            home.nat.move(world.public_address())
        case "jump":
            world.timeline.jump(dice.uniform(1, 5000))
        case "relay":
            dice.choice(list(world.relays.values())).stop()
            return RELAY_SILENCE_S
        case "roam":
            node = dice.choice(world.nodes)
            node.host.unplug()
            node.host.plug(home.network, home.next_address())
            node.link_changed()
        case _:
            pass
    return LONGEST_SILENCE_S


def assert_no_black_hole(world: World, one: SimNode, other: SimNode) -> None:
    """An address trusted now answered a ping within the time of trust."""
    for node, peer in ((one, other), (other, one)):
        address = node.path_to(peer).address
        if address is None:
            continue
        request = node.ping(peer)
        world.timeline.run_until(partial(answered, node, request), within_s=6)
        done = next(done for done in node.pings_done if done.request == request)
        if world.internet.loss == 0:
            assert done.endpoint is not None, (world, node.name, peer.name, done)


def answered(node: SimNode, request: int) -> bool:
    return any(done.request == request for done in node.pings_done)
