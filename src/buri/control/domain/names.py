"""A node's DNS label: made from its host name, unique in the tailnet (base, base-1, base-2, …)."""

from __future__ import annotations

import re
from collections.abc import Container

from buri.core.errors import ConfigError

MAX_LABEL = 63
_UNFIT = re.compile(r"[^a-z0-9-]+")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_COMMON_SUFFIXES = (".local", ".localdomain", ".lan", ".home")
FALLBACK = "node"


def sanitise(hostname: str) -> str:
    """A host name as one DNS label: lower case, everything unfit a hyphen; a name without anything fit is `node`."""
    text = hostname.strip().lower().removesuffix(".")
    for suffix in _COMMON_SUFFIXES:
        text = text.removesuffix(suffix)
    label = _UNFIT.sub("-", text.replace("'", "").replace("’", "")).strip("-")[:MAX_LABEL].strip("-")
    return label or FALLBACK


def unique(base: str, taken: Container[str]) -> str:
    """`base`, or the first free of base-1, base-2, …"""
    if base not in taken:
        return base
    number = 1
    while True:
        tail = f"-{number}"
        candidate = base[: MAX_LABEL - len(tail)].rstrip("-") + tail
        if candidate not in taken:
            return candidate
        number += 1


def belongs_to(name: str, base: str) -> bool:
    """Whether a given name is `base` or one of its numbered forms, so that it need not change."""
    if name == base:
        return True
    head, hyphen, tail = name.rpartition("-")
    return bool(hyphen) and tail.isdigit() and base[: MAX_LABEL - len(tail) - 1].rstrip("-") == head


def check_label(text: str) -> str:
    """An administrator's choice of name; raises ConfigError when it is no DNS label."""
    label = text.strip().lower()
    if len(label) > MAX_LABEL or not _LABEL.fullmatch(label):
        raise ConfigError(
            f"{text!r} is not a DNS label.",
            remedy=f"Use letters, digits and hyphens, not at either end, {MAX_LABEL} characters at most.",
        )
    return label
