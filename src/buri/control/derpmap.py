"""The map of relays that nodes get: the server's own relay, and the regions of `--derp-map FILE`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from buri.core.errors import ConfigError
from buri.wire.badjson import BAD_JSON
from buri.wire.tailcfg.derpmap import DERPMap, DERPRegion
from buri.wire.tailcfg.relayregion import OwnRelay, build_region

OWN_REGION = 999
OWN_CODE = "buri"


def build_derp_map(own: OwnRelay | None, more: DERPMap | None) -> DERPMap:
    """Both together; a region of the file replaces none of ours. Raises ConfigError when there is no relay at all."""
    regions: dict[int, DERPRegion | None] = dict((more.regions or {}) if more is not None else {})
    if own is not None:
        if OWN_REGION in regions:
            raise ConfigError(
                f"The DERP map's file has a region {OWN_REGION}, which is the server's own relay.",
                remedy="Give it another number, or run with --no-relay.",
            )
        regions[OWN_REGION] = build_region(own, OWN_REGION, OWN_CODE)
    if not regions:
        raise ConfigError(
            "Without a relay no node can come up.", remedy="Drop --no-relay, or give regions with --derp-map FILE."
        )
    return DERPMap(regions=regions, omit_default_regions=True)


def read_derp_map(path: Path) -> DERPMap:
    """A tailcfg.DERPMap from a JSON file; raises ConfigError with the place of what is wrong."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The DERP map {path} cannot be read: {error.strerror}.") from error
    try:
        found = msgspec.json.decode(text, type=DERPMap)
    except BAD_JSON as error:
        raise ConfigError(f"The DERP map {path} does not parse: {error}.") from error
    for number, region in (found.regions or {}).items():
        if region is None or region.region_id != number or number < 1 or not region.nodes:
            raise ConfigError(
                f"The DERP map {path}: region {number} needs RegionID {number} and at least one node.",
                remedy="Numbers begin at 1.",
            )
        if not all(node.host_name for node in region.nodes):
            raise ConfigError(f"The DERP map {path}: region {number} has a node without a HostName.")
    return found
