"""The preferences that have a flag: one table for `up`, `login`, `set` and `get`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
import msgspec

from buri.cli.flags import switch
from buri.core.errors import ConfigError
from buri.wire.localapi import Prefs

_F = TypeVar("_F", bound=Callable[..., Any])


class PrefFlag(msgspec.Struct, frozen=True):
    """A flag `--name` for the preference `field`; its kind (switch, text, list) is that of the preference's default."""

    name: str
    field: str
    help: str

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return isinstance(getattr(_DEFAULTS, self.field), bool)

    def text(self, prefs: Prefs) -> bool | str:
        """The preference as the flag would have it."""
        value = getattr(prefs, self.field)
        if isinstance(value, bool | str):
            return value
        return ",".join(value or [])


_DEFAULTS = Prefs()
FLAGS = {
    flag.name: flag
    for flag in (
        PrefFlag("login-server", "control_url", "The control server's URL."),
        PrefFlag("accept-routes", "route_all", "Use the subnets that other nodes offer."),
        PrefFlag("accept-dns", "corp_dns", "Use the tailnet's DNS (on by default)."),
        PrefFlag("shields-up", "shields_up", "Let no connection in."),
        PrefFlag("hostname", "hostname", "The name to have in the tailnet, instead of this host's own."),
        PrefFlag("advertise-tags", "advertise_tags", "Tags to ask for, such as tag:server,tag:lab."),
        PrefFlag("operator", "operator_user", "The user who may operate burid without sudo."),
    )
}

Given = Mapping[str, bool | str]


def pref_options(*, without: frozenset[str] = frozenset()) -> Callable[[_F], _F]:
    """Adds the flags to a click command; a flag that was not given is None."""

    def decorate(function: _F) -> _F:
        for flag in reversed(FLAGS.values()):
            if flag.name in without:
                continue
            if flag.is_switch:
                function = switch(f"--{flag.name}", flag.field, default=None, help=flag.help)(function)
            else:
                metavar = "URL" if flag.field == "control_url" else "TEXT"
                function = click.option(f"--{flag.name}", flag.field, metavar=metavar, help=flag.help)(function)
        return function

    return decorate


def given_flags(arguments: Mapping[str, Any]) -> dict[str, bool | str]:
    """Out of a command's arguments, the flags of this table that were given, by flag name."""
    return {f.name: arguments[f.field] for f in FLAGS.values() if arguments.get(f.field) is not None}


def changes(given: Given) -> dict[str, Any]:
    """The preferences that given flags set; raises ConfigError for a value that cannot be meant."""
    made: dict[str, Any] = {}
    for name, value in given.items():
        if name == "login-server":
            made["control_url"] = _url(str(value))
        elif name == "advertise-tags":
            tags = [tag.strip() for tag in str(value).split(",") if tag.strip()]
            made["advertise_tags"] = [tag if tag.startswith("tag:") else f"tag:{tag}" for tag in tags] or None
        else:
            made[FLAGS[name].field] = value
    return made


def flag_text(name: str, value: bool | str) -> str:
    """A flag as one would type it."""
    if value is True:
        return f"--{name}"
    if value is False:
        return f"--{name}=false"
    return f"--{name}={shlex.quote(value) if value else ''}"


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")) or len(text.split("://", 1)[1].strip("/")) == 0:
        raise ConfigError(
            f"--login-server: {text!r} is not the URL of a control server.",
            remedy="Write it like https://buri.example.com.",
        )
    return text.rstrip("/")
