"""Fuzz one Python target, guided by coverage: `python -m fuzz.run TARGET [libFuzzer's flags and corpus directories]`.

`make fuzz` calls it, with atheris (a wheel of libFuzzer for Python) on PYTHONPATH.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from pathlib import Path
from typing import Any


def main() -> None:
    atheris: Any = importlib.import_module("atheris")
    name, *flags = sys.argv[1:]
    with atheris.instrument_imports(include=["buri", "h2", "hpack", "hyperframe", "h11"]):
        from fuzz.targets import TARGETS
    (target,) = (target for target in TARGETS if target.name == name)
    logging.disable(logging.WARNING)  # what is refused is logged, a million times
    warnings.simplefilter("ignore", ResourceWarning)
    atheris.Setup([sys.argv[0], *flags], target.run)
    atheris.Fuzz()


def write_seeds(directory: Path) -> list[str]:
    """Write every target's seeds to a directory of its name; returns the names."""
    from fuzz.targets import TARGETS

    for target in TARGETS:
        place = directory / target.name
        place.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds):
            (place / f"seed{number}").write_bytes(seed)
    return [target.name for target in TARGETS]


if __name__ == "__main__":
    main()
