"""Sockets that cannot be had: whose fault it is, and which flag to change."""

from __future__ import annotations

import errno

import pytest

from buri.core.bindfault import bind_fault
from buri.core.errors import InUseError, NotPermittedError, SystemFault


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EADDRINUSE, InUseError, "taken by another program. Stop it, or give another --metrics."),
        (errno.EACCES, NotPermittedError, "No right to listen on"),
        (errno.EADDRNOTAVAIL, SystemFault, "is not an address of this machine. Give one of its own with --metrics."),
        (errno.EINVAL, SystemFault, "failed: odd."),
    ],
)
def test_each_reason_has_its_class_and_remedy(number: int, kind: type[SystemFault], words: str) -> None:
    fault = bind_fault(OSError(number, "odd"), "0.0.0.0:80", "--metrics")
    assert type(fault) is kind
    assert "0.0.0.0:80" in str(fault)
    assert words in str(fault)
