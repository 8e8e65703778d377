"""The catalogue: both languages say the same things, and the templates ask for nothing else."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from buri.control.signinproblem import SENTENCES
from buri.web.render import HERE
from buri.web.texts import CATALOGUE, choose_language, texts_in


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_both_languages_have_the_same_texts_with_the_same_places() -> None:
    assert CATALOGUE["en"].keys() == CATALOGUE["ja"].keys()
    for key, english in CATALOGUE["en"].items():
        assert places(english) == places(CATALOGUE["ja"][key]), key


def test_every_text_that_a_template_asks_for_is_there_and_every_text_is_asked_for() -> None:
    source = "\n".join(path.read_text() for path in (HERE / "templates").rglob("*.html"))
    asked = set(re.findall(r"\bt\(\"([\w.-]+)\"[,)]", source))
    assert asked <= CATALOGUE["en"].keys()
    by_name = {key for key in CATALOGUE["en"] if key.startswith(("problem.", "welcome."))}
    assert CATALOGUE["en"].keys() - by_name <= asked
    assert {f"problem.{code}" for code in SENTENCES} <= by_name


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        ("", "", "en"),
        ("", "ja", "ja"),
        ("", "ja-JP,en;q=0.9", "ja"),
        ("", "fr, en;q=0.5, ja;q=0.7", "ja"),
        ("", "ja;q=0, en", "en"),
        ("", "ja;q=x,*", "en"),
        ("en", "ja", "en"),
        ("xx", "ja", "ja"),
        ("", "," * 5000 + "ja", "en"),
    ],
)
def test_the_language_is_the_chosen_or_the_wished_one(chosen: str, accepted: str, language: str) -> None:
    assert choose_language(chosen, accepted) == language


def test_a_key_that_nobody_wrote_is_a_bug() -> None:
    with pytest.raises(KeyError):
        texts_in("ja")("no-such-text")
