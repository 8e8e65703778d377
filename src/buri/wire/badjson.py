"""What msgspec raises for JSON that does not read. Invalid UTF-8 inside a string is a UnicodeDecodeError, and nesting without
end a RecursionError (in members that are skipped, too), both outside its tree."""

from __future__ import annotations

import msgspec

BAD_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
