"""`buri policy check` names every fault as FILE:LINE:COLUMN, and needs no server."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from buri.cli.policy import command
from buri.core.errors import ConfigError


def test_a_valid_policy_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "policy.hujson"
    file.write_text('{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]},], // all\n}')
    result = CliRunner().invoke(command, ["check", str(file)])
    assert result.exit_code == 0
    assert result.output == f"{file} is a valid policy: 1 rule, 0 SSH rules, 0 tests to run on a server.\n"


def test_every_fault_has_its_place(tmp_path: Path) -> None:
    file = tmp_path / "policy.hujson"
    file.write_text('{\n"acls": [{"action": "drop", "src": ["tag:x"], "dst": []}],\n"x": 1}')
    result = CliRunner().invoke(command, ["check", str(file)])
    assert isinstance(result.exception, ConfigError)
    assert "3 faults" in str(result.exception)
    assert f'{file}:2:21: action="drop" is not supported' in result.output
    assert f'{file}:2:37: src=tag not found: "tag:x"' in result.output
    assert f'{file}:3:6: unknown field "x"' in result.output


@pytest.mark.parametrize("text", ['{"acls": [}', None])
def test_what_is_no_policy_file_is_said_in_a_sentence(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "policy.hujson"
    if text is not None:
        file.write_text(text)
    result = CliRunner().invoke(command, ["check", str(file)])
    assert isinstance(result.exception, ConfigError)
    assert str(file) in str(result.exception)


def test_standard_input_is_read() -> None:
    result = CliRunner().invoke(command, ["check", "-"], input="{}")
    assert "no rules, which allows everything" in result.output
