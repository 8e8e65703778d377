"""What every ring shares: who may run here, and a lab per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from buri.testing.lab import Lab, peers_directory, why_not

# A busy machine is no fault of the code: no example is judged by its time, and a failing one prints how to repeat it.
settings.register_profile("buri", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("buri")


def _engine_reason() -> str | None:
    try:
        import buri.engine._engine  # noqa: F401
    except ImportError as error:
        return f"the engine's binary cannot be loaded ({error}): run `make engine`"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out, with a plain reason, what this machine cannot run."""
    root_reason = why_not()
    peers = peers_directory()
    peers_reason = None if peers.is_dir() and any(peers.iterdir()) else "the real peers are not built: run `make peers`"
    engine_reason = _engine_reason()
    for item in items:
        for marker, reason in (("root", root_reason), ("interop", peers_reason), ("engine", engine_reason)):
            if reason is not None and item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A small internet, gone after the test; its logs stay in pytest's temporary directory."""
    with Lab(tmp_path_factory.mktemp("lab")) as made:  # a short path: sockets live in it
        yield made
