"""Why a listening socket could not be had, in the words of core.errors."""

from __future__ import annotations

import errno

from buri.core.errors import InUseError, NotPermittedError, SystemFault


def bind_fault(error: OSError, where: str, flag: str = "--listen") -> SystemFault:
    """The error class and words for a socket that could not be bound to `where`, which `flag` gave."""
    if error.errno == errno.EADDRINUSE:
        return InUseError(f"{where} is taken by another program.", remedy=f"Stop it, or give another {flag}.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotPermittedError(f"No right to listen on {where}.", remedy="Ports below 1024 need root.")
    if error.errno == errno.EADDRNOTAVAIL:
        return SystemFault(f"{where} is not an address of this machine.", remedy=f"Give one of its own with {flag}.")
    return SystemFault(f"Listening on {where} failed: {error.strerror or error}.")
