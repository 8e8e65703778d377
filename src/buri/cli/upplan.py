"""What `buri up` is to do, decided from flags, preferences and state alone (upstream: `cmd/tailscale/cli/up.go`).

`up` states all preferences at once: a flag left out means its default (server and operator stay as they are). So that
nobody loses a setting by forgetting one, an `up` that would reset a preference without saying so is refused, with the
command to type instead.
"""

from __future__ import annotations

import msgspec

from buri.cli.prefflags import FLAGS, Given, changes, flag_text
from buri.core.errors import ConfigError, StateError
from buri.wire.localapi import MaskedPrefs, Prefs, mask

REFUSAL = (
    "changing settings via 'buri up' requires mentioning all\n"
    "non-default flags. To proceed, either re-run your command with --reset or\n"
    "use the command below to explicitly mention the current value of\n"
    "all non-default settings:\n\n"
    "\tburi up"
)


class Edit(msgspec.Struct, frozen=True):
    """The node runs, and only simple preferences change: one edit, nothing to wait for."""

    edit: MaskedPrefs


class GoOnline(msgspec.Struct, frozen=True):
    """A bare `up` of a node that was logged in before."""

    edit: MaskedPrefs


class Start(msgspec.Struct, frozen=True):
    """State these preferences whole, and log in if need be."""

    prefs: Prefs


Plan = Edit | GoOnline | Start


def plan_up(
    given: Given,
    current: Prefs,
    backend_state: str,
    *,
    reset: bool = False,
    force: bool = False,
    auth_key: bool = False,
    sudo_user: str = "",
) -> Plan:
    """Decide; raises ConfigError (with what to type) for an `up` that would lose a setting or knows no server.

    `force`: log in anew. `sudo_user`: who called sudo, made operator at the first `up`.
    """
    wanted = _wanted(given, current, sudo_user)
    if current.control_url and not reset:
        if not given and not force and not auth_key and _was_logged_in(current) and backend_state != "NeedsLogin":
            return GoOnline(mask(want_running=True))
        missing = _missing(given, current, wanted)
        if missing:
            words = [flag_text(name, value) for name, value in given.items()] + missing
            raise ConfigError(f"{REFUSAL} {' '.join(words)}")
    if not wanted.control_url:
        raise ConfigError("No control server is known yet.", remedy="Name it: buri up --login-server=URL")
    moved = current.control_url != wanted.control_url
    running = backend_state == "Running"
    if moved and running and not force:
        raise StateError("can't change --login-server without --force-reauth.")
    same_tags = (current.advertise_tags or []) == (wanted.advertise_tags or [])
    if running and not force and not auth_key and not moved and same_tags:
        names = FLAGS if reset else given
        edit = {FLAGS[name].field: getattr(wanted, FLAGS[name].field) for name in names}
        return Edit(mask(want_running=True, **edit))
    return Start(wanted)


def _wanted(given: Given, current: Prefs, sudo_user: str) -> Prefs:
    fields = {flag.field: getattr(Prefs(), flag.field) for flag in FLAGS.values()}
    fields["operator_user"] = current.operator_user  # made by sudo once, so never to be repeated
    if not current.control_url and not current.operator_user:
        fields["operator_user"] = sudo_user
    fields["control_url"] = current.control_url  # there is no server of ours to fall back to
    fields |= changes(given)
    return msgspec.structs.replace(current, **fields, want_running=True, logged_out=False, config=None)


def _was_logged_in(prefs: Prefs) -> bool:
    return prefs.config is not None and prefs.config.user_profile.login_name != ""


def _missing(given: Given, current: Prefs, wanted: Prefs) -> list[str]:
    missing = []
    for flag in FLAGS.values():
        now, then = flag.text(current), flag.text(wanted)
        if flag.name not in given and now != then:
            missing.append(flag_text(flag.name, now))
    return sorted(missing)
