"""Who may change things over LocalAPI."""

from __future__ import annotations

import os
import pwd
import socket

import pytest

from buri.node.localapi.rights import peer_uid, rights_of

NOBODY = pwd.getpwnam("nobody")
OTHER_UID = next(uid for uid in (54321, 54322) if uid not in (os.geteuid(), NOBODY.pw_uid))


@pytest.mark.parametrize(
    ("uid", "operator", "writes"),
    [
        (0, "", True),
        (os.geteuid(), "", True),
        (NOBODY.pw_uid, "nobody", True),
        (NOBODY.pw_uid, "", NOBODY.pw_uid == os.geteuid()),
        (OTHER_UID, "nobody", False),
        (OTHER_UID, "no-such-user", False),
        (None, "nobody", False),
    ],
)
def test_root_the_daemons_user_and_the_operator_write(uid: int | None, operator: str, writes: bool) -> None:
    assert rights_of(uid, operator).write is writes


def test_the_other_end_of_a_unix_socket_is_known_by_its_user() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert peer_uid(here) == os.geteuid()
