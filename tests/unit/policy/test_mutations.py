"""Real policies, laid out at random and then broken: the reader says what is wrong at the place where it is."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buri.core.errors import ConfigError, SyntaxPlaceError
from buri.policy.compiler import check
from buri.policy.document import parse
from buri.policy.problems import PolicyError
from buri.policy.tailnet import Tailnet
from buri.wire.hujson import Document
from unit.policy.worlds import PATIENT, policies, tailnets

VECTORS = Path(__file__).parents[2] / "vectors" / "policy"
REAL = [
    case["policy"] if isinstance(case["policy"], str) else json.dumps(case["policy"], indent=1)
    for path in sorted(VECTORS.glob("*.hujson"))
    for case in Document.parse(path.read_bytes()).value
]
SNIPPETS = (
    *(
        '"',
        "'",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "/",
        "//",
        "/*",
        "*/",
        "\n",
        "\x00",
        "\u2028",
        "é",
        "\ud83d",
        "null",
    ),
    *("true", "1e999", "-", "0", "*", "@", "tag:", "autogroup:", "::", "/0", "-1", "9" * 400, "[" * 2000, ',"acls":[]'),
)
GAPS = ("", " ", "\n", "\r\n", "\t", '// é " , ] }\n', "/* [1,] */", "/**/", "/* two\nlines */ ", "//\n")


def _tokens(value: Any, random: Random) -> list[str]:
    """A value as HuJSON tokens, here and there with a trailing comma."""
    if isinstance(value, dict):
        inner = [[json.dumps(key), ":", *_tokens(item, random)] for key, item in value.items()]
        ends = "{}"
    elif isinstance(value, list):
        inner = [_tokens(item, random) for item in value]
        ends = "[]"
    else:
        return [json.dumps(value, ensure_ascii=False)]
    tokens: list[str] = [ends[0]]
    for index, piece in enumerate(inner):
        tokens += piece
        if index < len(inner) - 1 or random.random() < 0.5:
            tokens.append(",")
    return [*tokens, ends[1]]


def _laid_out(tokens: list[str], random: Random) -> tuple[str, list[int]]:
    """The tokens with random gaps, and where each begins."""
    text, starts = "", []
    for token in tokens:
        text += random.choice(GAPS)
        starts.append(len(text))
        text += token
    return text + random.choice(GAPS), starts


def _place(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1


def _refusal(text: str | bytes) -> ConfigError | SyntaxPlaceError | None:
    try:
        parse(text, domains=frozenset(["home.example"]))
    except (PolicyError, SyntaxPlaceError) as error:
        return error
    return None


def _is_within(error: ConfigError | SyntaxPlaceError | None, text: str) -> bool:
    if error is None:
        return True
    places = [(p.line, p.column) for p in error.problems] if isinstance(error, PolicyError) else [_of(error)]
    lines = text.split("\n")
    return all(1 <= line <= len(lines) and 1 <= column <= len(lines[line - 1]) + 1 for line, column in places)


def _of(error: ConfigError | SyntaxPlaceError) -> tuple[int, int]:
    assert isinstance(error, SyntaxPlaceError)
    return error.line, error.column


@settings(PATIENT, max_examples=300)
@given(st.sampled_from(REAL), st.randoms(use_true_random=False), st.integers(1, 6))
def test_a_broken_policy_is_read_or_refused_within_the_text(text: str, random: Random, times: int) -> None:
    for _ in range(times):
        at, length = random.randrange(len(text) + 1), random.choice((0, 0, 1, 1, 5, 40))
        piece = random.choice(
            (random.choice(SNIPPETS), "", text[random.randrange(len(text) + 1) :][:30], text[at : at + length] * 2)
        )
        text = text[:at] + piece + text[at + length :]
    text = text.removeprefix("\ufeff")
    assert _is_within(_refusal(text), text)


@settings(PATIENT, max_examples=200)
@given(st.sampled_from(REAL), st.randoms(use_true_random=False))
def test_broken_bytes_are_read_or_refused(text: str, random: Random) -> None:
    data = bytearray(text.encode())
    for _ in range(random.randrange(1, 5)):
        data[random.randrange(len(data))] = random.randrange(256)
    error = _refusal(bytes(data))
    assert error is None or isinstance(error, (PolicyError, SyntaxPlaceError))


@settings(PATIENT, max_examples=200)
@given(policies(), st.randoms(use_true_random=False))
def test_a_stray_character_is_named_where_it_stands(policy: str, random: Random) -> None:
    tokens = _tokens(json.loads(policy), random)
    at = random.randrange(len(tokens) + 1)
    text, starts = _laid_out([*tokens[:at], "@", *tokens[at:]], random)
    with pytest.raises(SyntaxPlaceError) as caught:
        parse(text)
    assert _of(caught.value) == _place(text, starts[at])


@settings(PATIENT, max_examples=200)
@given(policies(), st.randoms(use_true_random=False))
def test_an_unknown_word_is_named_where_it_stands(policy: str, random: Random) -> None:
    value = json.loads(policy)
    rules = [*value["grants"], *value["acls"]]
    wrong = [(rule, key) for rule in rules for key in ("src", "dst") if rule[key]]
    value["alcs"] = []
    expected = {'unknown field "alcs"'}
    if wrong:
        rule, key = random.choice(wrong)
        ports = ":22" if key == "dst" and "action" in rule else ""
        rule[key][random.randrange(len(rule[key]))] = f"tag:nowhere{ports}"
        expected.add('tag not found: "tag:nowhere"')
    tokens = _tokens(value, random)
    text, starts = _laid_out(tokens, random)
    with pytest.raises(PolicyError) as caught:
        parse(text)
    found = {(problem.line, problem.column) for problem in caught.value.problems}
    places = {_place(text, starts[i]) for i, token in enumerate(tokens) if token.startswith('"tag:nowhere')}
    places.add(_place(text, starts[tokens.index('"alcs"') + 2]))  # an entry is named by its value's place
    assert found == places
    assert all(any(words in str(problem) for words in expected) for problem in caught.value.problems)


@settings(PATIENT, max_examples=100)
@given(policies(), tailnets(), st.randoms(use_true_random=False))
def test_the_layout_of_a_policy_does_not_matter(policy: str, tailnet: Tailnet, random: Random) -> None:
    text, _ = _laid_out(_tokens(json.loads(policy), random), random)
    plain, laid_out = check(policy, tailnet), check(text, tailnet)
    for placed in plain.members.each(plain.members.all):
        number = placed.node.id
        assert plain.packet_filter(number) == laid_out.packet_filter(number)
        assert plain.ssh_rules(number) == laid_out.ssh_rules(number)


@pytest.mark.parametrize(
    "text",
    [
        '{"acls": ' + '[{"action": "accept", "src": ["*"], "dst": ["*:*"]},' * 2000,
        '{"groups": {' + ",".join(f'"group:{n}": ["a@b.c"]' for n in range(5000)) + "},}",
        '{"acls": [{"src": ["' + "," * 100_000 + '"]}]}',
        '{"hosts": {"a": "' + "1." * 50_000 + '"}}',
        '{"postures": {"posture:a": ["node:os IN [' + "'a', " * 20_000 + ']"]}}',
        '{"ssh": [{"action": "check", "checkPeriod": "' + "1h" * 20_000 + '", "users": ["root"]}]}',
        '{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:' + "1," * 50_000 + '"]}]}',
        '{"ipsets": {"ipset:a": [' + ",".join(f'"10.0.{n >> 8}.{n & 255}"' for n in range(0, 4000, 2)) + "]}}",
    ],
)
def test_long_policies_are_read_or_refused_at_once(text: str) -> None:
    assert _is_within(_refusal(text), text)
