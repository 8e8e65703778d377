"""Watching the host's own network: what its interfaces have, and when that changes."""
