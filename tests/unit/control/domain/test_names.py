"""DNS labels for nodes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buri.control.domain import names
from buri.core.errors import ConfigError


@pytest.mark.parametrize(
    ("hostname", "label"),
    [
        ("box", "box"),
        ("Alice's MacBook Pro.local", "alices-macbook-pro"),
        ("host.example.com", "host-example-com"),
        ("--", "node"),
        ("", "node"),
        ("日本", "node"),
        ("a" * 80, "a" * 63),
        ("UPPER_case", "upper-case"),
    ],
)
def test_a_host_name_becomes_a_label(hostname: str, label: str) -> None:
    assert names.sanitise(hostname) == label


@given(st.text(max_size=100))
def test_any_host_name_becomes_a_label(hostname: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", names.sanitise(hostname))


def test_a_taken_name_is_numbered() -> None:
    assert names.unique("box", {"other"}) == "box"
    assert names.unique("box", {"box"}) == "box-1"
    assert names.unique("box", {"box", "box-1"}) == "box-2"


def test_a_long_name_is_cut_for_its_number() -> None:
    name = names.unique("a" * 63, {"a" * 63})
    assert name == "a" * 61 + "-1"
    assert names.belongs_to(name, "a" * 63)


def test_a_numbered_name_belongs_to_its_base_only() -> None:
    assert names.belongs_to("box-12", "box")
    assert not names.belongs_to("boxer", "box")
    assert not names.belongs_to("box-x", "box")


@pytest.mark.parametrize("text", ["", "-a", "a-", "a.b", "a_b", "a" * 64])
def test_an_administrators_unfit_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="DNS label"):
        names.check_label(text)
