"""The map stream's frames, client side: repeated [LE32 length][zstd of one JSON MapResponse] (wire reference 1a).

A message may be made of several zstd frames, one after the other; they decode as one text.
"""

from __future__ import annotations

import sys

import msgspec

from buri.core.errors import WireError
from buri.wire.badjson import BAD_JSON
from buri.wire.tailcfg.mapping import MapResponse

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["MapFrameReader", "decode", "zstd"]

MAX_FRAME_BYTES = 64 << 20
MAX_MESSAGE_BYTES = 256 << 20
MAX_ZSTD_FRAMES = 1 << 16  # of one message: one a peer is plenty, and each costs tens of microseconds however empty
LENGTH_BYTES = 4

_decoder = msgspec.json.Decoder(MapResponse)


class MapFrameReader:
    """Feed it the body as it comes; it returns the messages that are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[MapResponse]:
        """Raises WireError when a frame is too long, not zstd, or not a MapResponse."""
        self._buffer += data
        messages = []
        start = 0
        while len(self._buffer) - start >= LENGTH_BYTES:
            length = int.from_bytes(self._buffer[start : start + LENGTH_BYTES], "little")
            if length > MAX_FRAME_BYTES:
                raise WireError(f"A map message of {length} bytes is too long.")
            end = start + LENGTH_BYTES + length
            if len(self._buffer) < end:
                break
            messages.append(decode(bytes(self._buffer[start + LENGTH_BYTES : end])))
            start = end
        del self._buffer[:start]
        return messages


def decode(frame: bytes) -> MapResponse:
    """One message without its length; raises WireError."""
    text = bytearray()
    rest = memoryview(frame)
    frames = 0
    try:
        while rest:
            frames += 1
            if frames > MAX_ZSTD_FRAMES:
                raise WireError("A map message is in too many pieces.")
            size = zstd.get_frame_size(rest)  # cut first: what is left behind would else be copied for every frame
            unpacker = zstd.ZstdDecompressor()
            text += unpacker.decompress(rest[:size], MAX_MESSAGE_BYTES - len(text))
            if not unpacker.eof:
                raise WireError("A map message is cut short or too long.")
            rest = rest[size:]
        return _decoder.decode(bytes(text))
    except zstd.ZstdError as error:
        raise WireError("A map message is not zstd.") from error
    except BAD_JSON as error:
        raise WireError(f"A map message does not read: {error}.") from error
