"""The policy compiler: parsing, a full compile, every node's filter, and one node's change.

    PYTHONPATH=src python bench/policy.py [--nodes 1000] [--rules 500]

The tailnet has users with three nodes each and tagged servers; the policy has groups, tags, hosts and autogroup:self.
Times are the best of five, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable

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
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--nodes", type=int, default=1000)
    arguments.add_argument("--rules", type=int, default=500)
    chosen = arguments.parse_args()
    net = tailnet(chosen.nodes)
    text = policy(chosen.rules, len(net.users))
    parsed = parse(text)
    compiled = CompiledPolicy(parsed, net)
    ids = [node.id for node in net.nodes]

    def all_filters() -> None:
        for node_id in ids:
            compiled.packet_filter(node_id)

    def all_sights() -> None:
        for node_id in ids:
            compiled.peer_ids(node_id)

    turn = iter(range(10**9))
    touched: set[int] = set()

    def change(number: int) -> None:
        node = net.nodes[number]
        moved = {"ipv4": f"100.127.{next(turn) % 250}.9", "created_s": float(next(turn))}
        touched.clear()
        touched.update(compiled.put(msgspec.structs.replace(node, **moved)))

    def change_and_views(number: int) -> None:
        change(number)
        for node_id in touched:
            compiled.packet_filter(node_id)

    server, person = 5 * (chosen.nodes // 10), 5 * (chosen.nodes // 10) + 3
    print(f"{chosen.nodes} nodes, {chosen.rules} rules, {len(text) // 1024} KiB of text")
    print(f"parse and validate           {best(lambda: parse(text)):9.2f} ms")
    print(f"compile from scratch         {best(lambda: CompiledPolicy(parsed, net)):9.2f} ms")
    print(f"every node's packet filter   {best(all_filters):9.2f} ms")
    print(f"every node's set of peers    {best(all_sights):9.2f} ms")
    all_filters()
    for name, number in (("a tagged node", server), ("a person's node", person)):
        alone = best(lambda number=number: change(number))  # type: ignore[misc]
        print(f"{name + ' changes':28} {alone:9.2f} ms, {len(touched)} nodes touched")
        views = best(lambda number=number: change_and_views(number))  # type: ignore[misc]
        print(f"{'… and their filters anew':28} {views:9.2f} ms")


if __name__ == "__main__":
    main()
