"""Every text of the pages, in English and Japanese, and the choice between them.

A page asks for `text("key", name=value)`; values are escaped where the template puts the result, for no text holds markup.
The sentences of `SignInProblem` are `problem.CODE`. A test holds both languages to the same keys and places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from buri.control.signinproblem import SENTENCES
from buri.web.wording import japanese
from buri.web.wording.english import TEXTS as ENGLISH

LANGUAGES = {"en": "English", "ja": "日本語"}
Text = Callable[..., str]

CATALOGUE: Mapping[str, Mapping[str, str]] = {
    "en": {**ENGLISH, **{f"problem.{code}": sentence for code, sentence in SENTENCES.items()}},
    "ja": japanese.TEXTS,
}


def choose_language(chosen: str, accepted: str) -> str:
    """The language of a person who chose one (a cookie), else the first of Accept-Language that there is."""
    if chosen in LANGUAGES:
        return chosen
    wishes: list[tuple[float, str]] = []
    for item in accepted[:1000].split(","):
        tag, _, rest = item.strip().partition(";")
        weight = rest.strip().removeprefix("q=") if rest else "1"
        try:
            wishes.append((-float(weight), tag.partition("-")[0].lower()))
        except ValueError:
            continue
    ordered = sorted(wishes, key=lambda wish: wish[0])
    return next((tag for weight, tag in ordered if tag in LANGUAGES and weight < 0), "en")


def texts_in(language: str) -> Text:
    """The lookup of one language. Raises KeyError for a key that no catalogue has: that is a bug, not a state."""
    table = CATALOGUE[language]

    def text(key: str, **values: object) -> str:
        return table[key].format(**values)

    return text
