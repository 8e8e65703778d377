"""HuJSON: comments and trailing commas go, places stay true, no text crashes or hangs the reader."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buri.core.errors import SyntaxPlaceError
from buri.wire.hujson import Document

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab/*,"\\ é', max_size=4), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1/* a */,/* b */2]", [1, 2]),
        ('{"a": 1/* a */,/* b */"b": 2/* c */,/* d */}', {"a": 1, "b": 2}),
        ("[" + "1/**/,/**/" * 5000 + "]", [1] * 5000),
        ('{"a": 1, // one\n "b": [1, 2,],}', {"a": 1, "b": [1, 2]}),
        ("/* a */ [1 /* , */, /* ] */ ]", [1]),
        ('["//", "/* no */", ",]", "\\"//", ]', ["//", "/* no */", ",]", '"//']),
        ('\ufeff{"a": "é",}', {"a": "é"}),
        ("[1, // last\n /* really */ ]", [1]),
    ],
)
def test_comments_and_trailing_commas_are_no_part_of_the_value(text: str, value: object) -> None:
    assert Document.parse(text.encode()).value == value


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{"a" 1}', 1, 6),
        ('{\n  // é\n  "é": nul\n}', 3, 8),
        ("[1]\n]", 2, 1),
        ('{"a": /* open', 1, 7),
        ("[,]", 1, 2),
        ("", 1, 1),
        ('["\n"]', 1, 3),
    ],
)
def test_an_error_names_its_place(text: str, line: int, column: int) -> None:
    with pytest.raises(SyntaxPlaceError) as caught:
        Document.parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_bytes_that_are_not_utf8_are_refused_at_their_place() -> None:
    with pytest.raises(SyntaxPlaceError) as caught:
        Document.parse(b'{\n"a": "\xff"}')
    assert (caught.value.line, caught.value.column) == (2, 7)


def test_every_value_has_its_place() -> None:
    document = Document.parse('{\n  "a": [1, /* x */ {"b": true}],\n  "c": "d",\n}')
    assert document.place(("a",)) == (2, 8)
    assert document.place(("a", 1, "b")) == (2, 26)
    assert document.place(("c",)) == (3, 8)
    assert document.place(("a", 1, "gone", 7)) == (2, 20)
    assert document.place(()) == (1, 1)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '"' + '\\"' * 100_000, ",/*" * 50_000, ", " * 100_000, "/" * 100_000, ",//\n" * 50_000]
)
def test_hostile_texts_are_refused_at_once(text: str) -> None:
    with pytest.raises(SyntaxPlaceError):
        Document.parse(text)


def _refusal(data: bytes | str) -> SyntaxPlaceError | None:
    try:
        Document.parse(data)
    except SyntaxPlaceError as error:
        return error
    return None


@settings(deadline=None)
@given(JSON)
def test_what_is_json_is_read_as_json(value: object) -> None:
    assert Document.parse(json.dumps(value)).value == value


@settings(deadline=None)
@given(st.text('{}[],:"/*\\\n 1atrue', max_size=60) | st.text(max_size=60))
def test_any_text_gives_a_value_or_a_place_within_it(text: str) -> None:
    error = _refusal(text)
    assert error is None or (1 <= error.line <= text.count("\n") + 1 and error.column >= 1)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_place(data: bytes) -> None:
    error = _refusal(data)
    assert error is None or (error.line >= 1 and error.column >= 1)
