"""The map of relays that nodes get: the server's own relay, and the regions of `--derp-map FILE`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from buri.core.addresses import IPAddress
from buri.core.errors import ConfigError
from buri.wire.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion

OWN_REGION = 999
OWN_CODE = "buri"


class OwnRelay(msgspec.Struct, frozen=True):
    """What a client must know of the relay inside this server. `certificate` is a CertName or pin, "" = verify by roots."""

    host: str
    addresses: tuple[IPAddress, ...]
    port: int
    stun_port: int | None
    certificate: str = ""
    name: str = "Buri's own relay"


def build_derp_map(own: OwnRelay | None, more: DERPMap | None) -> DERPMap:
    """Both together; a region of the file replaces none of ours. Raises ConfigError when there is no relay at all."""
    regions: dict[int, DERPRegion | None] = dict((more.regions or {}) if more is not None else {})
    if own is not None:
        if OWN_REGION in regions:
            raise ConfigError(
                f"The DERP map's file has a region {OWN_REGION}, which is the server's own relay.",
                remedy="Give it another number, or run with --no-relay.",
            )
        regions[OWN_REGION] = _own_region(own)
    if not regions:
        raise ConfigError(
            "Without a relay no node can come up.", remedy="Drop --no-relay, or give regions with --derp-map FILE."
        )
    return DERPMap(regions=regions, omit_default_regions=True)


def _own_region(own: OwnRelay) -> DERPRegion:
    ipv4 = next((str(a) for a in own.addresses if a.version == 4), "none" if own.addresses else "")
    ipv6 = next((str(a) for a in own.addresses if a.version == 6), "none" if own.addresses else "")
    first = DERPNode(
        name=f"{OWN_REGION}a",
        region_id=OWN_REGION,
        host_name=own.host,
        cert_name=own.certificate,
        ipv4=ipv4,
        ipv6=ipv6,
        derp_port=own.port,
        stun_port=-1 if own.stun_port is None else own.stun_port,
    )
    nodes = [first]
    if own.stun_port is not None:
        # A second STUN port on one host lets a node tell whether its NAT maps by destination.
        second = msgspec.structs.replace(first, name=f"{OWN_REGION}b", stun_only=True, stun_port=own.stun_port + 1)
        nodes.append(second)
    return DERPRegion(region_id=OWN_REGION, region_code=OWN_CODE, region_name=own.name, nodes=nodes)


def read_derp_map(path: Path) -> DERPMap:
    """A tailcfg.DERPMap from a JSON file; raises ConfigError with the place of what is wrong."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The DERP map {path} cannot be read: {error.strerror}.") from error
    try:
        found = msgspec.json.decode(text, type=DERPMap)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"The DERP map {path} does not parse: {error}.") from error
    for number, region in (found.regions or {}).items():
        if region is None or region.region_id != number or not region.nodes:
            raise ConfigError(f"The DERP map {path}: region {number} needs RegionID {number} and at least one node.")
    return found
