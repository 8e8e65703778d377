"""What the settings of every server role share: a flag before a variable, and the values both kinds of flags take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError, WireError


def given(
    flags: object, names: Iterable[str], prefix: str, environment: Mapping[str, str]
) -> Callable[[str], str | None]:
    """A look-up by a flag's name: the flag, else its variable (`prefix` and the name in capitals), else None.

    Raises ConfigError for a variable of this prefix that no flag has.
    """
    known = {f"{prefix}{name.upper()}" for name in names}
    for variable in environment:
        if variable.startswith(prefix) and variable not in known:
            raise ConfigError(f"The variable {variable} is not known.", remedy=f"Known are {', '.join(sorted(known))}.")

    def text(name: str) -> str | None:
        flag: str | None = getattr(flags, name)
        return flag if flag is not None else environment.get(f"{prefix}{name.upper()}") or None

    return text


def listen_address(flag: str, text: str, *, such_as: str) -> AddrPort:
    """ADDRESS:PORT, or :PORT for every IPv4 address, as Go programs take it. Raises ConfigError."""
    try:
        return AddrPort.parse(f"0.0.0.0{text}" if text.startswith(":") else text)
    except WireError as error:
        raise ConfigError(f"{flag} takes ADDRESS:PORT (such as {such_as}), not {text!r}.") from error


def stun_address(text: str, *, such_as: str) -> AddrPort:
    """Where STUN answers; the next port answers too. Raises ConfigError."""
    stun = listen_address("--stun", text, such_as=such_as)
    if not 0 < stun.port < 65535:
        raise ConfigError("--stun takes a port from 1 to 65534: the next one answers too.")
    return stun
