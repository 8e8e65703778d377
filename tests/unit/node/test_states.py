"""Which state follows from which facts."""

from __future__ import annotations

import pytest

from buri.node.states import Facts, next_state
from buri.wire.localapi import BackendState

S = BackendState


@pytest.mark.parametrize(
    ("now", "facts", "state"),
    [
        (S.NO_STATE, Facts(has_key=False, wanted=True), S.NEEDS_LOGIN),
        (S.RUNNING, Facts(has_key=False, wanted=False), S.NEEDS_LOGIN),
        (S.RUNNING, Facts(has_key=True, wanted=False, has_netmap=True), S.STOPPED),
        (S.STOPPED, Facts(has_key=True, wanted=True), S.STARTING),
        (S.STARTING, Facts(has_key=True, wanted=True, has_netmap=True), S.STARTING),
        (S.STARTING, Facts(has_key=True, wanted=True, has_netmap=True, relay_up=True), S.RUNNING),
        (S.STARTING, Facts(has_key=True, wanted=True, has_netmap=True, live_peer=True), S.RUNNING),
        (S.RUNNING, Facts(has_key=True, wanted=True, has_netmap=True), S.RUNNING),
        (S.RUNNING, Facts(has_key=True, wanted=True, has_netmap=True, expired=True), S.NEEDS_LOGIN),
        (S.RUNNING, Facts(has_key=True, wanted=True, has_netmap=True, lost=True), S.NEEDS_LOGIN),
        (S.RUNNING, Facts(has_key=True, wanted=True, has_netmap=True, authorized=False), S.NEEDS_MACHINE_AUTH),
    ],
)
def test_next_state(now: BackendState, facts: Facts, state: BackendState) -> None:
    assert next_state(now, facts) is state
