"""A program that runs one engine by a JSON file, for the namespace tests: no daemon, no server, paths set by hand.

Prints `ready`, then one line an event. SIGUSR1 rebinds its sockets; at SIGTERM it prints its counters as JSON and ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from buri.core.addresses import AddrPort
from buri.core.keys import NodePrivate, NodePublic
from buri.engine import port
from buri.engine.native import NativeEngine

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def orders(config: dict[str, Any]) -> list[port.Order]:
    """The tables that the file describes."""
    mine = tuple(ip_network(text) for text in config["local"])
    made: list[port.Order] = [
        port.SetFilter(
            local=mine,
            rules=(port.FilterRule(EVERYTHING, mine, (port.PortRange(0, 65535),), (1, 6, 17, 58)),),
        ),
        port.SetPeers(
            tuple(
                port.Peer(NodePublic(bytes.fromhex(peer["key"])), tuple(ip_network(text) for text in peer["allowed"]))
                for peer in config["peers"]
            )
        ),
    ]
    if relay := config.get("relay"):
        made.append(
            port.ConnectRelay(
                region=relay["region"],
                addresses=(ip_address(relay["address"]),),
                port=relay["port"],
                server_name=relay["address"],
                plain=relay.get("plain", False),
                certificate=relay.get("certificate", ""),
                insecure=relay.get("insecure", False),
                preferred=True,
            )
        )
    made += [
        port.SetPath(
            NodePublic(bytes.fromhex(peer["key"])),
            udp=AddrPort.parse(peer["udp"]) if peer.get("udp") else None,
            relay_region=peer.get("relay"),
            gso=peer.get("gso", True),
        )
        for peer in config["peers"]
    ]
    return made


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    engine = NativeEngine(
        port.EngineConfig(
            private_key=NodePrivate(bytes.fromhex(config["private"])),
            tun_name=config["tun"],
            mtu=config.get("mtu", 1280),
            udp_port=config.get("udp_port", 41641),
            spin_us=config.get("spin_us", 50),
            offloads=port.Offloads(**config.get("offloads", {})),
        )
    )
    for address in config["addresses"]:
        subprocess.run(["ip", "addr", "add", address, "dev", config["tun"]], check=True)
    subprocess.run(["ip", "link", "set", config["tun"], "up"], check=True)
    engine.apply(orders(config))
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    say("ready")
    while True:
        readable, _, _ = select.select([engine.fileno(), reader], [], [])
        for event in engine.poll_events():
            say(str(event))
        if reader in readable:
            if signal.SIGTERM in os.read(reader, 100):
                break
            engine.apply([port.Rebind()])
    stats = engine.stats()
    say("counters " + json.dumps({name: value for name, value in stats.counters.items() if value}))
    for peer in stats.peers:
        say("peer " + json.dumps({"rx": peer.rx_bytes, "tx": peer.tx_bytes, "handshake": peer.handshake_age_s}))
    engine.close()


if __name__ == "__main__":
    main()
