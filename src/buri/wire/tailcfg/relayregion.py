"""One relay of our own as clients are told of it: its region of a DERP map (wire reference 1d, "DERPMap")."""

from __future__ import annotations

import msgspec

from buri.core.addresses import IPAddress
from buri.wire.tailcfg.derpmap import DERPNode, DERPRegion


class OwnRelay(msgspec.Struct, frozen=True):
    """What a client must know of a relay. `certificate` is a CertName or pin, "" = verify by roots.

    Without `addresses` clients resolve `host`; with some, a family that has none is not tried.
    """

    host: str
    addresses: tuple[IPAddress, ...]
    port: int
    stun_port: int | None
    certificate: str = ""
    name: str = "Buri's own relay"


def build_region(relay: OwnRelay, region_id: int, code: str) -> DERPRegion:
    """The region whose only relay is `relay`; STUN is expected on `stun_port` and on the next port."""
    ipv4 = next((str(a) for a in relay.addresses if a.version == 4), "none" if relay.addresses else "")
    ipv6 = next((str(a) for a in relay.addresses if a.version == 6), "none" if relay.addresses else "")
    first = DERPNode(
        name=f"{region_id}a",
        region_id=region_id,
        host_name=relay.host,
        cert_name=relay.certificate,
        ipv4=ipv4,
        ipv6=ipv6,
        derp_port=relay.port,
        stun_port=-1 if relay.stun_port is None else relay.stun_port,
    )
    nodes = [first]
    if relay.stun_port is not None:
        # A second STUN port on one host lets a node tell whether its NAT maps by destination.
        second = msgspec.structs.replace(first, name=f"{region_id}b", stun_only=True, stun_port=relay.stun_port + 1)
        nodes.append(second)
    return DERPRegion(region_id=region_id, region_code=code, region_name=relay.name, nodes=nodes)
