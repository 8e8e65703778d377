"""Secrets on disk: nobody else's to read, never half written, never replaced when damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from buri.core.errors import ConfigError, NotPermittedError, SystemFault
from buri.core.keys import NodePrivate
from buri.netio.secretfile import load_or_make_key, write_public, write_secret

FORMAT = "buri-test-key 1"


def test_a_secret_is_its_owners_whatever_lay_there_before(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "secret", tmp_path / "elsewhere"
    path.write_text("old")
    path.chmod(0o644)
    elsewhere.write_text("not ours")
    (tmp_path / ".secret.new").symlink_to(elsewhere)
    write_secret(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)
    assert elsewhere.read_text() == "not ours"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "secret"]


def test_what_everybody_may_read_is_replaced_whole_under_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    write_public(path, b"old")
    with path.open("rb") as reader:
        write_public(path, b"new")
        assert reader.read() == b"old", "a reader of the old file reads on in it"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o444 == 0o444
    assert os.listdir(tmp_path) == ["map.json"]


def test_a_secret_that_cannot_be_kept_is_the_systems_fault(tmp_path: Path) -> None:
    with pytest.raises(SystemFault, match="cannot be written"):
        write_secret(tmp_path / "gone" / "secret", b"x")


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    first = load_or_make_key(path, NodePrivate, FORMAT)
    assert load_or_make_key(path, NodePrivate, FORMAT) == first
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"buri-test-key 2\nprivkey:00\n", b"buri-test-key 1\nprivkey:zz\n"]
)
def test_a_damaged_key_file_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"some\.key"):
        load_or_make_key(path, NodePrivate, FORMAT)
    assert path.read_bytes() == content


def test_a_key_of_another_user_says_whose_right_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_or_make_key(path, NodePrivate, FORMAT)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(NotPermittedError) as caught:
        load_or_make_key(path, NodePrivate, FORMAT)
    assert caught.value.remedy
