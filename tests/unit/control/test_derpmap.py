"""The relays nodes are told of: our own, those of a file, and the words for a file that cannot be used."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest

from buri.control.derpmap import OWN_REGION, build_derp_map, read_derp_map
from buri.core.errors import ConfigError
from buri.wire.tailcfg.relayregion import OwnRelay

OWN = OwnRelay(
    host="10.77.0.1", addresses=(ip_address("10.77.0.1"),), port=8080, stun_port=3478, certificate="sha256-raw:ab"
)
REGION = {"RegionID": 9, "RegionCode": "lab", "Nodes": [{"Name": "9a", "RegionID": 9, "HostName": "derp.example.org"}]}


def written(path: Path, regions: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"Regions": regions}))
    return path


def test_our_relay_is_a_region_of_two_nodes_of_which_the_second_is_for_stun(tmp_path: Path) -> None:
    told = json.loads(msgspec.json.encode(build_derp_map(OWN, None)))
    region = told["Regions"][str(OWN_REGION)]
    first, second = region["Nodes"]
    assert told["omitDefaultRegions"]
    assert (region["RegionID"], region["RegionCode"]) == (999, "buri")
    assert (first["Name"], first["DERPPort"], first["STUNPort"], first["CertName"]) == (
        "999a",
        8080,
        3478,
        "sha256-raw:ab",
    )
    assert (first["IPv4"], first["IPv6"]) == ("10.77.0.1", "none")
    assert not first.get("STUNOnly")
    assert (second["Name"], second["STUNPort"], second["STUNOnly"]) == ("999b", 3479, True)
    same = ("HostName", "IPv4", "IPv6", "DERPPort", "CertName", "RegionID")
    assert [first[name] for name in same] == [second[name] for name in same]


def test_regions_of_a_file_stand_beside_ours_or_alone(tmp_path: Path) -> None:
    more = read_derp_map(written(tmp_path / "map.json", {"9": REGION}))
    assert sorted(build_derp_map(OWN, more).regions or ()) == [9, 999]
    assert sorted(build_derp_map(None, more).regions or ()) == [9]


def test_a_file_may_not_take_our_region_s_number(tmp_path: Path) -> None:
    more = read_derp_map(written(tmp_path / "map.json", {"999": REGION | {"RegionID": 999}}))
    with pytest.raises(ConfigError) as caught:
        build_derp_map(OWN, more)
    assert str(caught.value) == (
        "The DERP map's file has a region 999, which is the server's own relay. "
        "Give it another number, or run with --no-relay."
    )
    assert sorted(build_derp_map(None, more).regions or ()) == [999]


def test_without_any_relay_it_does_not_start(tmp_path: Path) -> None:
    for more in (None, read_derp_map(written(tmp_path / "map.json", {}))):
        with pytest.raises(ConfigError, match="Without a relay no node can come up"):
            build_derp_map(None, more)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{", "truncated"),
        ("[]", "Expected `object`, got `array`"),
        ('{"Regions": {"9": {"RegionID": "nine"}}}', r"Expected `int`, got `str` - at `$.Regions[...].RegionID`"),
        ('{"Regions": {"lab": {}}}', "`$.Regions`"),
        ('{"Regions": {"9": null}}', "region 9 needs RegionID 9 and at least one node"),
        ('{"Regions": {"9": {"RegionID": 8, "Nodes": [{}]}}}', "region 9 needs RegionID 9 and at least one node"),
        ('{"Regions": {"9": {"RegionID": 9}}}', "region 9 needs RegionID 9 and at least one node"),
        ('{"Regions": {"0": {"RegionID": 0, "Nodes": [{"HostName": "x"}]}}}', "region 0 needs"),
        ('{"Regions": {"9": {"RegionID": 9, "Nodes": [{"Name": "9a"}]}}}', "region 9 has a node without a HostName"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_place(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_derp_map(path)
    assert str(path) in str(caught.value)
    assert place in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_derp_map(tmp_path / "none.json")
    assert str(caught.value) == f"The DERP map {tmp_path}/none.json cannot be read: No such file or directory."


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "relays.json"
    path.write_bytes(b'{"Regions": {"9": {"RegionID": 9, "RegionCode": "\xff"}}}')
    with pytest.raises(ConfigError, match=r"relays\.json does not parse"):
        read_derp_map(path)
