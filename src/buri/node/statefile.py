"""The name of the file that a node's state is in: known before anything is loaded that could read it."""

from __future__ import annotations

STATE_FILE = "burid.state"
MEMORY = "mem:"
