"""All of Python's targets."""

from __future__ import annotations

from fuzz import config_targets, control_targets, node_targets, wire_targets

TARGETS = (*wire_targets.TARGETS, *control_targets.TARGETS, *config_targets.TARGETS, *node_targets.TARGETS)
