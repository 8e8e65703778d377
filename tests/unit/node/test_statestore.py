"""What a node keeps, and what it says when it cannot."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from buri.core.errors import ConfigError, SystemFault
from buri.core.keys import NodePrivate
from buri.machine.mapdelta import Netmap
from buri.node.statestore import StateStore
from buri.wire.localapi import Prefs
from buri.wire.tailcfg.node import Login, Node, User


def test_keys_are_made_once_and_kept_for_root_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "burid.state"
    first = StateStore(path)
    again = StateStore(path)
    assert again.machine == first.machine
    assert again.disco == first.disco
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["machine_key"].startswith("privkey:")


def test_a_login_keeps_its_key_before_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "s"
    key = StateStore(path).next_node_key(fresh=False)
    store = StateStore(path)
    assert store.next_node_key(fresh=False) == key
    assert store.node_key is None
    store.logged_in(key, User(id=3), Login(login_name="ame@example.com"))
    after = StateStore(path)
    assert after.node_key == key
    assert after.state.next_node_key == ""
    assert after.next_node_key(fresh=False) != key
    assert after.next_node_key(fresh=True) != after.node_key


def test_logout_forgets_the_node_and_keeps_the_machine(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "s")
    key = store.next_node_key(fresh=False)
    store.logged_in(key, User(), Login())
    store.save_netmap(Netmap(self_node=Node(key=str(key.public()))))
    store.keep_prefs(Prefs(), forget=True)
    after = StateStore(tmp_path / "s")
    assert after.node_key is None
    assert after.machine == store.machine
    assert after.load_netmap() is None


def test_a_netmap_is_read_back_for_its_own_key_only(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "s")
    assert store.load_netmap() is None
    key = store.next_node_key(fresh=False)
    store.logged_in(key, User(), Login())
    netmap = Netmap(self_node=Node(id=1, key=str(key.public())), peers={2: Node(id=2)})
    store.save_netmap(netmap)
    assert StateStore(tmp_path / "s").load_netmap() == netmap
    assert stat.S_IMODE((tmp_path / "netmap.json").stat().st_mode) == 0o600
    store.logged_in(store.next_node_key(fresh=True), User(), Login())
    assert store.load_netmap() is None


def test_a_netmap_that_does_not_read_is_none(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "s")
    store.logged_in(store.next_node_key(fresh=False), User(), Login())
    (tmp_path / "netmap.json").write_text("{")
    assert store.load_netmap() is None


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "damaged"),
        ('{"machine_key": "privkey:00"}', "damaged"),
        ('{"user": {"DisplayName": "\udcff"}}', "damaged"),
        ('{"prefs": 7}', "damaged"),
        ('{"node_key": "privkey:' + "11" * 32 + '"}', "damaged"),
        ('{"machine_key": "privkey:' + " 1" * 32 + '"}', "damaged"),
        ('{"user": ' + "[" * 5000, "damaged"),
        ('{"format": 99}', "newer Buri"),
    ],
)
def test_a_state_file_that_cannot_be_used_is_left_alone(tmp_path: Path, content: str, word: str) -> None:
    path = tmp_path / "s"
    path.write_text(content, errors="surrogateescape")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=word) as caught:
        StateStore(path)
    assert caught.value.remedy
    assert path.read_bytes() == before


def test_memory_leaves_no_file(tmp_path: Path) -> None:
    store = StateStore(None)
    store.logged_in(NodePrivate.from_entropy(bytes(range(32))), User(), Login())
    store.save_netmap(Netmap(self_node=Node()))
    assert store.ephemeral
    assert list(tmp_path.iterdir()) == []


def test_a_state_never_prints_its_keys(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "s")
    store.next_node_key(fresh=True)
    assert "privkey" not in repr(store.state)
    assert store.machine.raw.hex() not in repr(store.state)


def test_what_the_disk_does_not_take_did_not_happen(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "d" / "s")
    key = store.next_node_key(fresh=False)
    before = store.state
    (tmp_path / "d").rename(tmp_path / "away")
    for change in (
        lambda: store.logged_in(key, User(id=3), Login()),
        lambda: store.keep_prefs(Prefs(hostname="ame")),
        lambda: store.keep_prefs(Prefs(), forget=True),
        lambda: store.next_node_key(fresh=True),
    ):
        with pytest.raises(SystemFault, match="cannot be written"):
            change()
        assert store.state is before
    store.forget_for_now()
    assert store.node_key is None
    (tmp_path / "away").rename(tmp_path / "d")
    assert StateStore(tmp_path / "d" / "s").next_node_key(fresh=False) == key


def test_what_is_so_already_needs_no_disk(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "d" / "s")
    key = store.next_node_key(fresh=False)
    store.logged_in(key, User(id=3), Login())
    (tmp_path / "d").rename(tmp_path / "away")
    store.logged_in(key, User(id=3), Login())


def test_a_clock_that_went_back_makes_a_node_begin_anew_to_its_peers(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = StateStore(path)
    written_s = path.stat().st_mtime
    assert StateStore(path, lambda: written_s + 5).disco == first.disco
    assert StateStore(path, lambda: written_s - 0.5).disco == first.disco
    behind = StateStore(path, lambda: written_s - 86400 * 365)
    assert behind.disco != first.disco
    assert behind.machine == first.machine
