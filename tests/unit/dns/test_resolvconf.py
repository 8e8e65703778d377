"""The person's own resolv.conf survives everything; a file of ours is never taken for it."""

from __future__ import annotations

import asyncio
import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from buri.core.addresses import AddrPort
from buri.core.errors import NotPermittedError
from buri.dns.osconfig import OSDNS
from buri.dns.osconfig.resolvconf import PlainFile, nameservers
from buri.dns.osconfig.resolved import leads_here

OWN = "# mine\nnameserver 192.168.1.1\nsearch lan\noptions ndots:2\n"
WANTED = OSDNS((ip_address("100.100.100.100"),), ("tail.example",))


def apply(plain: PlainFile, wanted: OSDNS = WANTED) -> None:
    asyncio.run(plain.apply(wanted))


def test_ours_stands_while_it_is_wanted_and_theirs_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(OWN)
    plain = PlainFile(tmp_path)
    apply(plain)
    apply(plain)  # a second time takes ours for nobody's
    assert file.read_text().splitlines()[1:] == ["nameserver 100.100.100.100", "search tail.example", "options ndots:2"]
    assert asyncio.run(plain.upstreams()) == (AddrPort.parse("192.168.1.1:53"),)
    assert PlainFile(tmp_path).revert_now()  # as after a crash: another process
    assert file.read_text() == OWN
    assert os.listdir(tmp_path) == ["resolv.conf"]
    assert not plain.revert_now()


def test_a_link_comes_back_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stub").write_text(OWN)
    (tmp_path / "resolv.conf").symlink_to("run/stub")
    plain = PlainFile(tmp_path)
    apply(plain)
    assert (tmp_path / "run" / "stub").read_text() == OWN
    plain.revert_now()
    assert os.readlink(tmp_path / "resolv.conf") == "run/stub"


def test_where_there_was_none_none_is_left(tmp_path: Path) -> None:
    plain = PlainFile(tmp_path)
    apply(plain)
    plain.revert_now()
    assert os.listdir(tmp_path) == []


def test_a_file_that_somebody_wrote_since_stays(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(OWN)
    plain = PlainFile(tmp_path)
    apply(plain)
    file.write_text("nameserver 10.0.0.1\n")
    plain.revert_now()
    assert file.read_text() == "nameserver 10.0.0.1\n"
    assert os.listdir(tmp_path) == ["resolv.conf"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text(OWN)
    tmp_path.chmod(0o555)
    with pytest.raises(NotPermittedError, match="--accept-dns=false"):
        apply(PlainFile(tmp_path))


def test_name_servers_are_read_as_libc_does() -> None:
    text = "nameserver 192.168.1.1\nnameserver fe80::1%eth0\n#nameserver 1.2.3.4\nnameserver x\nnameserver\n"
    assert [str(found.address) for found in nameservers(text + "nameserver 100.100.100.100\n")] == [
        "192.168.1.1",
        "fe80::1",
    ]


def test_who_asks_resolved_is_seen_by_link_and_by_stub(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    assert not leads_here(file)
    file.write_text("nameserver 127.0.0.53\n")
    assert leads_here(file)
    file.write_text(OWN)
    assert not leads_here(file)
    file.unlink()
    file.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    assert leads_here(file)
