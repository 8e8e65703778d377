"""What msgspec raises for JSON that does not read. Invalid UTF-8 inside a string is a UnicodeDecodeError, outside its tree."""

from __future__ import annotations

import msgspec

BAD_JSON = (msgspec.MsgspecError, UnicodeDecodeError)
