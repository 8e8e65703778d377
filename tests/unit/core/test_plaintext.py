"""Others' words on our terminal: a host name must not move the cursor, clear the screen or hide what follows."""

from __future__ import annotations

import pytest

from buri.cli.admin_format import print_table
from buri.cli.render.columns import columns
from buri.cli.render.status import render_health
from buri.core.plaintext import REPLACEMENT, plain

EVIL = "\x1b[2J\x1b]0;owned\x07printer\r\u202egnp.exe"


def test_plain_text_stays_as_it_is() -> None:
    for text in ("", "printer", "Ötzi’s läptop 鰤", "a b"):
        assert plain(text) is text


def test_controls_are_replaced_one_by_one_and_lines_may_stay() -> None:
    assert plain(EVIL) == f"{REPLACEMENT}[2J{REPLACEMENT}]0;owned{REPLACEMENT}printer{REPLACEMENT}{REPLACEMENT}gnp.exe"
    assert plain("a\nb\tc\x9b") == f"a{REPLACEMENT}b{REPLACEMENT}c{REPLACEMENT}"
    assert plain("a\nb\tc\x9b", keep_lines=True) == f"a\nb\tc{REPLACEMENT}"


def test_no_table_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("HOST",), [(EVIL,)], empty="")
    text = capsys.readouterr().out + "".join(columns([(EVIL, "x")])) + "".join(render_health([EVIL]))
    assert not set(text) & {"\x1b", "\x07", "\r", "\u202e"}
