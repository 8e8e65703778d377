"""Text that others wrote, made fit for a terminal or a log line: nothing in it moves the cursor or hides the rest."""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"
# C0 and C1 controls, the line and paragraph separators, and what turns the direction of writing.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str, *, keep_lines: bool = False) -> str:
    """The text with each control character replaced; `keep_lines` leaves newlines and tabs as they are."""
    if not _CONTROLS.search(text):
        return text
    return _CONTROLS.sub(lambda found: found[0] if keep_lines and found[0] in "\n\t" else REPLACEMENT, text)
