"""Map messages as they come from a control server that may be broken."""

from __future__ import annotations

import pytest

from buri.core.errors import WireError
from buri.machine.mapframes import decode, zstd


@pytest.mark.parametrize(
    "text", [b"{", b'{"Domain": "\xff\xfe"}', b'{"Peers": 7}'], ids=["cut short", "no UTF-8", "wrong type"]
)
def test_a_message_that_does_not_read_is_the_servers_fault(text: bytes) -> None:
    with pytest.raises(WireError, match="does not read"):
        decode(zstd.compress(text))
