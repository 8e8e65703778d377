"""A policy's `derpMap`: relay regions that add to, replace or take away the tailnet's own.

Source: Tailscale's custom DERP servers reference. A region that is null is taken away; `omitDefaultRegions` leaves the
policy's regions alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from buri.policy.problems import Faults
from buri.wire.hujson import Path
from buri.wire.tailcfg.derpmap import DERPHomeParams, DERPMap, DERPNode, DERPRegion

_FIELDS = {
    field.encode_name.lower(): field.encode_name
    for struct in (DERPMap, DERPHomeParams, DERPRegion, DERPNode)
    for field in msgspec.structs.fields(struct)
}


def read(value: Any, path: Path, faults: Faults) -> DERPMap | None:
    """Read a `derpMap`; what is wrong goes to `faults`."""
    before = len(faults)
    plain = _canonical(value, path, faults)
    if len(faults) > before:
        return None
    try:
        found = msgspec.convert(plain, DERPMap, str_keys=True)
    except msgspec.ValidationError as error:
        faults.add(path, f"derpMap: {error}")
        return None
    for number, region in (found.regions or {}).items():
        if region is not None and region.region_id != number:
            faults.add(path, f'derpMap: region "{number}" says it is RegionID {region.region_id}')
    return found


def merge(own: DERPMap, policy: DERPMap) -> DERPMap:
    """The map that nodes get: a tailnet's own and what its policy says of it."""
    regions = {} if policy.omit_default_regions else dict(own.regions or {})
    regions |= policy.regions or {}
    kept: dict[int, DERPRegion | None] = {n: region for n, region in sorted(regions.items()) if region is not None}
    home = policy.home_params if policy.home_params is not None else own.home_params
    return DERPMap(home_params=home, regions=kept, omit_default_regions=policy.omit_default_regions)


def _canonical(value: Any, path: Path, faults: Faults) -> Any:
    """The same with keys spelled as the wire does, which the service takes in any case."""
    if isinstance(value, list):
        return [_canonical(item, (*path, index), faults) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    plain: dict[str, Any] = {}
    for key, item in value.items():
        name = key if key.isdecimal() else _FIELDS.get(key.lower())
        if name is None:
            faults.add((*path, key), f'unknown field "{key}"')
        else:
            plain[name] = _canonical(item, (*path, key), faults)
    return plain
