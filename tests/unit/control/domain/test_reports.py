"""What nodes report of themselves, the absurd included."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from buri.core.errors import WireError
from buri.testing.controlworld import World
from buri.wire.tailcfg.node import NetInfo


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 10**30},
        {"version": -1},
        {"disco_key": "discokey:zz"},
        {"hostinfo": {"NetInfo": {"PreferredDERP": 10**30}}},
        {"hostinfo": {"NetInfo": {"PreferredDERP": -5}}},
        {"hostinfo": {"OSVersion": "x" * 70_000}},
        {"hostinfo": {"Services": [{"Proto": "tcp", "Port": 70_000}]}},
        {"hostinfo": {"Location": {"Priority": 10**30}}},
    ],
    ids=[
        "huge version",
        "negative version",
        "no key",
        "huge region",
        "negative region",
        "huge host",
        "a port that would break Go's clients",
        "a number that would break Go's clients",
    ],
)
def test_an_absurd_report_is_refused_and_harms_nothing(fields: dict[str, Any]) -> None:
    async def scenario() -> None:
        world = World()
        machine = world.machine()
        await machine.join(await world.auth_key())
        before = world.admin.node("box")
        request = machine.map_request(omit_peers=True, endpoints=["192.0.2.1:5"])
        if "hostinfo" in fields:
            request.hostinfo = msgspec.convert(fields["hostinfo"], type(machine.hostinfo))
        for name in fields.keys() - {"hostinfo"}:
            setattr(request, name, fields[name])
        with pytest.raises(WireError):
            await world.coordinator.update(machine.machine, request)
        assert world.admin.node("box") == before

    asyncio.run(scenario())


def test_measurements_stay_with_the_server_and_home_goes_out() -> None:
    async def scenario() -> None:
        world = World()
        key = await world.auth_key()
        machine, watcher = world.machine(), world.machine("watcher")
        await machine.join(key)
        await watcher.join(key)
        netmap = await watcher.open()
        await netmap.read_all()
        await machine.update(["192.0.2.1:5"], derp=900)
        assert (await netmap.read()) == {
            "PeersChangedPatch": [{"DERPRegion": 900, "DiscoKey": str(machine.disco), "Endpoints": ["192.0.2.1:5"]}]
        }
        machine.hostinfo = msgspec.structs.replace(machine.hostinfo, net_info=NetInfo(derp_latency={"900-v4": 0.02}))
        request = machine.map_request(omit_peers=True, endpoints=["192.0.2.1:5"], hostinfo=machine.hostinfo)
        await world.coordinator.update(machine.machine, request)
        assert await netmap.read_all() == 0
        assert world.admin.node("box").home_derp == 900
        kept = world.admin.node("box").hostinfo.net_info
        assert kept is not None
        assert kept.derp_latency == {"900-v4": 0.02}

    asyncio.run(scenario())
