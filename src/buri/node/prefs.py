"""The preferences a user sets, in LocalAPI's shape (wire reference 1g, "Prefs"); what has no use here is not kept."""

from __future__ import annotations

import msgspec

DEFAULT_CONTROL_URL = ""


class Prefs(msgspec.Struct, kw_only=True, frozen=True):
    control_url: str = msgspec.field(name="ControlURL", default=DEFAULT_CONTROL_URL)
    route_all: bool = msgspec.field(name="RouteAll", default=False)
    corp_dns: bool = msgspec.field(name="CorpDNS", default=True)
    want_running: bool = msgspec.field(name="WantRunning", default=False)
    logged_out: bool = msgspec.field(name="LoggedOut", default=False)
    shields_up: bool = msgspec.field(name="ShieldsUp", default=False)
    advertise_tags: list[str] | None = msgspec.field(name="AdvertiseTags", default=None)
    hostname: str = msgspec.field(name="Hostname", default="")
    operator_user: str = msgspec.field(name="OperatorUser", default="")
