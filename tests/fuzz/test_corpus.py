"""Every fuzz target stands its seeds and what was found before (tests/fuzz/corpus/<target>); `make fuzz` searches on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.target import Target
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_target_stands_its_seeds_and_what_was_found_before(target: Target) -> None:
    kept = sorted((CORPUS / target.name).glob("*"))
    for data in (b"", *target.seeds, *(path.read_bytes() for path in kept)):
        target.run(data)


def test_every_kept_input_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= {target.name for target in TARGETS}
