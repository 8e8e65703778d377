"""Map messages as they come from a control server that may be broken."""

from __future__ import annotations

import pytest

from buri.core.errors import WireError
from buri.machine.mapframes import MAX_ZSTD_FRAMES, decode, zstd


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b'{"Domain": "\xff\xfe"}',
        b'{"Peers": 7}',
        b'{"SSHPolicy": ' + b"[" * 100_000,
        b'{"New": ' + b"[" * 100_000,
    ],
    ids=["cut short", "no UTF-8", "wrong type", "too deep", "too deep where nobody looks"],
)
def test_a_message_that_does_not_read_is_the_servers_fault(text: bytes) -> None:
    with pytest.raises(WireError, match="does not read"):
        decode(zstd.compress(text))


def test_a_message_in_many_pieces_reads_and_one_in_too_many_is_refused_at_once() -> None:
    pieces = b"".join(zstd.compress(piece) for piece in (b'{"Dom', b'ain"', b': "a.example"}'))
    assert decode(pieces).domain == "a.example"
    with pytest.raises(WireError, match="too many pieces"):
        decode(zstd.compress(b"") * (MAX_ZSTD_FRAMES + 1))
