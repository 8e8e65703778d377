"""The policy compiler: parsing, a full compile, every node's filter, and one node's change.

    PYTHONPATH=src python bench/policy.py [--nodes 1000,3000,10000] [--rules 500]

The tailnet has users with three nodes each and tagged servers; the policy has groups, tags, hosts and autogroup:self.
Times are of the processor, the best of three to five.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from buri.policy.compiler import CompiledPolicy
from buri.policy.document import parse
from buri.policy.tailnet import Node, Tailnet, User


def tailnet(nodes: int) -> Tailnet:
    users = tuple(User(number, f"user{number}@example.com") for number in range(1, nodes // 5 + 2))
    made: list[Node] = []
    for number in range(1, nodes + 1):
        tagged = number % 5 < 2
        made.append(
            Node(
                number,
                None if tagged else 1 + number % len(users),
                (f"tag:t{number % 40}",) if tagged else (),
                f"100.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}",
                f"fd7a:115c:a1e0::{number:x}",
                (f"10.{number >> 8 & 255}.{number & 255}.0/24",) if number % 100 == 0 else (),
                float(number),
            )
        )
    return Tailnet(users, tuple(made))


def policy(rules: int, users: int) -> str:
    chance = random.Random(7)
    people = [f"user{number}@example.com" for number in range(1, users + 1)]
    groups = {f"group:g{number}": chance.sample(people, min(15, len(people))) for number in range(60)}
    acls = [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]}]
    while len(acls) < rules:
        src = chance.choice([f"group:g{chance.randrange(60)}", f"tag:t{chance.randrange(40)}", chance.choice(people)])
        dst = chance.choice([f"tag:t{chance.randrange(40)}", f"group:g{chance.randrange(60)}", "10.1.0.0/16"])
        acls.append({"action": "accept", "src": [src], "dst": [f"{dst}:{chance.randrange(1, 65535)}"]})
    owners: dict[str, list[str]] = {f"tag:t{number}": [] for number in range(40)}
    return json.dumps({"groups": groups, "tagOwners": owners, "acls": acls}, indent=1)


def best(work: Callable[[], object], rounds: int = 5) -> float:
    times: list[float] = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) * 1000


class Figures(NamedTuple):
    """What is measured at one size, in milliseconds and mebibytes."""

    nodes: int
    parse: float
    compile: float
    filters: float
    peers: float
    change: dict[str, tuple[float, float, int]]
    memory_mib: float


def measure(nodes: int, rules: int) -> Figures:
    net = tailnet(nodes)
    text = policy(rules, len(net.users))
    parsed = parse(text)
    ids = [node.id for node in net.nodes]
    rounds = 5 if nodes <= 1000 else 3
    gc.collect()
    tracemalloc.start()
    compiled = CompiledPolicy(parsed, net)
    for node_id in ids:
        compiled.packet_filter(node_id)
        compiled.peer_mask(node_id)
    memory_mib = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()

    def fresh() -> CompiledPolicy:
        return CompiledPolicy(parsed, net)

    turn = iter(range(10**9))
    touched: set[int] = set()

    def change(number: int) -> None:
        moved = next(turn)
        node = msgspec.structs.replace(net.nodes[number], ipv4=f"100.127.{moved % 250}.9", created_s=float(moved))
        touched.clear()
        touched.update(compiled.put(node))

    def change_and_filters(number: int) -> None:
        change(number)
        for node_id in touched:
            compiled.packet_filter(node_id)

    server, person = 5 * (nodes // 10), 5 * (nodes // 10) + 3
    changes = {
        name: (best(lambda: change(number)), best(lambda: change_and_filters(number)), len(touched))  # noqa: B023
        for name, number in (("a tagged node", server), ("a person's node", person))
    }
    whole = [fresh() for _ in range(rounds)]
    turns = iter(whole)
    return Figures(
        nodes,
        best(lambda: parse(text)),
        best(fresh, rounds),
        best(lambda: _each(next(turns).packet_filter, ids), rounds),
        best(lambda: _each(whole[0].peer_ids, ids), rounds),
        changes,
        memory_mib,
    )


def _each(ask: Callable[[int], object], ids: list[int]) -> None:
    for node_id in ids:
        ask(node_id)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--nodes", default="1000,3000,10000", help="sizes of the tailnet")
    arguments.add_argument("--rules", type=int, default=500)
    chosen = arguments.parse_args()
    text = policy(5000, 1000)
    print(f"5000 rules, {len(text) // 1024} KiB of text: parsed and validated in {best(lambda: parse(text)):.1f} ms\n")
    print(f"{chosen.rules} rules")
    for size in map(int, chosen.nodes.split(",")):
        seen = measure(size, chosen.rules)
        print(f"{seen.nodes} nodes")
        print(f"  parse and validate          {seen.parse:9.2f} ms")
        print(f"  compile from scratch        {seen.compile:9.2f} ms")
        print(f"  every node's packet filter  {seen.filters:9.2f} ms, {seen.filters / seen.nodes * 1000:.1f} µs each")
        print(f"  every node's set of peers   {seen.peers:9.2f} ms, {seen.peers / seen.nodes * 1000:.1f} µs each")
        for name, (alone, with_filters, touched) in seen.change.items():
            print(
                f"  {name + ' changes':27} {alone:9.2f} ms; with the filters of {touched} touched {with_filters:.2f} ms"
            )
        print(f"  memory of the compiled      {seen.memory_mib:9.1f} MiB")


if __name__ == "__main__":
    main()
