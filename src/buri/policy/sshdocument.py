"""Reads the `ssh` and `sshTests` entries of a policy."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

from buri.policy.model import SshRule, SshTest
from buri.policy.names import Names, UnknownNameError
from buri.policy.problems import Faults
from buri.policy.reader import Reader
from buri.policy.selectors import DANGER_ALL, INTERNET, MEMBER, NONROOT, SELF, TAGGED, Kind, Selector
from buri.wire.hujson import Path

MAX_CHECK_PERIOD_S = 168 * 3600.0
LOCALPART = "localpart:*@"
_RULE = frozenset(
    ["action", "src", "dst", "users", "checkperiod", "acceptenv", "srcposture", "recorder", "enforcerecorder"]
)
_TEST = frozenset(["src", "dst", "accept", "deny", "check", "srcpostureattrs"])
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")


def rule(
    path: Path,
    item: Any,
    faults: Faults,
    names: Names,
    domains: frozenset[str] | None,
    postures: Container[str],
) -> SshRule:
    """Read one entry of `ssh`; faults go to `faults`. `postures` are the names of those there are."""
    reader = Reader(item, path, faults, _RULE)
    action = reader.text("action").strip()
    if not action:
        faults.add(reader.at("action"), "action must be specified")
    elif action not in ("accept", "check"):
        faults.add(reader.at("action"), f'"{action}" is not a valid action')
    srcs = _srcs(reader, names, domains)
    users: list[str] = []
    for index, word in enumerate(reader.words("users")):
        at, user = reader.at("users", index), word.strip()
        if user == "*" or not user:
            faults.add(at, f'user "{user}" is not valid')
        elif (domain := localpart_domain(user)) and domains is not None and domain not in domains:
            faults.add(at, _foreign(domain))
        users.append(user)
    if not users:
        faults.add(reader.at("users"), "users must be specified")
    environment = reader.words("acceptenv")
    if "" in environment:
        faults.add(reader.at("acceptenv"), "acceptEnv values cannot be empty")
    check = action == "check"
    if not check and reader.has("checkperiod"):
        faults.add(reader.at("checkperiod"), 'checkPeriod is only valid with action "check"')
    dsts = _dsts(reader, names)
    if fault := _pair_fault(srcs, dsts):
        faults.add(reader.at("dst"), fault)
    return SshRule(
        path,
        check,
        srcs,
        dsts,
        tuple(users),
        check_period_s=_check_period(reader) if check else None,
        accept_env=tuple(environment),
        posture=_posture(reader, postures),
        recorders=_recorders(reader, names),
        enforce_recorder=reader.flag("enforcerecorder"),
    )


def test(path: Path, item: Any, faults: Faults, names: Names) -> SshTest:
    """Read one entry of `sshTests`. What does not resolve fails the test later; what can never be is a fault now."""
    reader = Reader(item, path, faults, _TEST)
    dsts: list[str] = []
    for index, word in enumerate(reader.words("dst")):
        at, dst = reader.at("dst", index), word.strip()
        if dst.startswith("tag:") and dst not in names.tags:
            faults.add(at, f'SSH tests dst contains unknown tag "{dst}"')
        elif dst in (INTERNET, DANGER_ALL, "*") or "/" in dst or _is_network(names.hosts.get(dst)):
            faults.add(at, f'SSH tests dst contains disallowed element "{dst}"')
        dsts.append(dst)
    accept, deny, check = (tuple(word.strip() for word in reader.words(name)) for name in ("accept", "deny", "check"))
    return SshTest(path, reader.text("src").strip(), tuple(dsts), accept, deny, check)


def _is_network(host: Selector | None) -> bool:
    return host is not None and not all(one.is_host for one in host.spans)


def localpart_domain(user: str) -> str:
    """The domain of "localpart:*@DOMAIN"; "" for any other login name (which then stands for itself)."""
    return user.removeprefix(LOCALPART) if user.startswith(LOCALPART) else ""


def _srcs(reader: Reader, names: Names, domains: frozenset[str] | None) -> tuple[Selector, ...]:
    srcs: list[Selector] = []
    for index, word in enumerate(reader.words("src")):
        at = reader.at("src", index)
        try:
            selector = names.select(word)
        except UnknownNameError as error:
            reader.faults.add(at, f"[ssh] src={error}")
            continue
        if selector.kind is Kind.DOMAIN and domains is not None and selector.name not in domains:
            reader.faults.add(at, f"[ssh] {_foreign(selector.name)}")
        elif selector.name in (SELF, INTERNET, NONROOT, DANGER_ALL):
            reader.faults.add(at, f'invalid src "{word}"')
        srcs.append(selector)
    return tuple(srcs)


def _dsts(reader: Reader, names: Names) -> tuple[Selector, ...]:
    dsts: list[Selector] = []
    for index, word in enumerate(reader.words("dst")):
        at = reader.at("dst", index)
        try:
            selector = names.select(word)
        except UnknownNameError as error:
            reader.faults.add(at, f'dst="{word}": {error}')
            continue
        if selector.kind in (Kind.ADDRESS, Kind.DOMAIN, Kind.EVERYONE, Kind.SERVICE) or selector.name in (
            INTERNET,
            NONROOT,
            DANGER_ALL,
        ):
            reader.faults.add(at, f'invalid dst "{word.strip()}"')
        dsts.append(selector)
    return tuple(dsts)


def _posture(reader: Reader, postures: Container[str]) -> tuple[str, ...]:
    words = reader.words("srcposture")
    for index, word in enumerate(words):
        if word not in postures:
            reader.faults.add(reader.at("srcposture", index), f'posture not found: "{word}"')
    return tuple(words)


def _recorders(reader: Reader, names: Names) -> tuple[Selector, ...]:
    found: list[Selector] = []
    words = reader.words("recorder")
    for index, word in enumerate(words):
        try:
            selector = names.select(word)
        except UnknownNameError as error:
            reader.faults.add(reader.at("recorder", index), f"recorder={error}")
            continue
        if selector.kind is not Kind.TAG:
            reader.faults.add(reader.at("recorder", index), f'recorder "{word}" can only be a tag')
        found.append(selector)
    if not words and reader.flag("enforcerecorder"):
        reader.faults.add(reader.at("enforcerecorder"), "enforceRecorder needs a recorder")
    return tuple(found)


def _pair_fault(srcs: tuple[Selector, ...], dsts: tuple[Selector, ...]) -> str | None:
    """Why these sources may not reach these destinations by SSH: a person's nodes are for that person alone."""
    tagged = any(src.kind is Kind.TAG or src.name == TAGGED for src in srcs)
    for dst in dsts:
        if tagged and dst.name == SELF:
            return (
                "autogroup:self destination requires source to contain only users or groups, "
                "not tags or autogroup:tagged"
            )
        if tagged and dst.name == MEMBER:
            return "tags in SSH source cannot access autogroup:member (user-owned devices)"
        if dst.kind is Kind.USER and tagged:
            return f"tags in SSH source cannot access user-owned devices ({dst.text})"
        if dst.kind is Kind.USER and any(src.name != dst.name for src in srcs):
            return (
                f'user destination requires source to contain only that same user "{dst.text}"; '
                "use autogroup:self instead for same-user SSH access"
            )
    return None


def _foreign(domain: str) -> str:
    return f"{domain} is not associated with this Tailnet and cannot be used in user:*@<domain> expressions"


def _check_period(reader: Reader) -> float:
    """Seconds; the service's default is 12 hours, 0 stands for "always"."""
    text = reader.text("checkperiod").strip()
    if not text:
        return 12 * 3600.0
    if text == "always":
        return 0.0
    seconds = _duration(text)
    if seconds is None:
        reader.faults.add(reader.at("checkperiod"), f'checkPeriod "{text}" is not a duration such as "12h"')
        return 0.0
    if seconds <= 0:
        reader.faults.add(reader.at("checkperiod"), f"checkPeriod {_go_duration(seconds)} must be a positive duration")
    elif seconds > MAX_CHECK_PERIOD_S:
        reader.faults.add(
            reader.at("checkperiod"),
            f"checkPeriod {_go_duration(seconds)} is above the max ({MAX_CHECK_PERIOD_S / 3600:.0f}h)",
        )
    return seconds


def _duration(text: str) -> float | None:
    """Seconds of a Go duration ("1h30m"); None when it is none."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    if rest == "0":
        return 0.0
    parts = _DURATION.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        return None
    return sign * sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def _go_duration(seconds: float) -> str:
    """A duration of whole seconds as Go prints it: "168h0m1s"."""
    sign, total = ("-" if seconds < 0 else ""), abs(seconds)
    hours, rest = divmod(total, 3600)
    minutes, left = divmod(rest, 60)
    text = f"{left:g}s"
    if hours or minutes:
        text = f"{minutes:.0f}m{text}"
    if hours:
        text = f"{hours:.0f}h{text}"
    return sign + text
