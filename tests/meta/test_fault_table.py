"""The table of faults is whole: every entry of the code has a row, every row an entry, every proof a test."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import click
import pytest

from buri.cli.main import VERBS
from buri.roles import daemon
from buri.wire import adminapi
from faultrow import Fault
from faults import TABLE

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "buri"
RUST = ROOT / "rust" / "engine" / "src"
PARSES = re.compile(r"(parse|decode|read|resolve|given)(_|$)|open_datagram$")
DECODES = re.compile(r"json\.decode\(|msgspec\.convert\(|([._]|\b)decoder\.decode\(|_(strings|hostinfo)\.decode\(")
# Named like parsers, but fed by ourselves or the kernel.
NO_INPUT = {
    "cli.flags.GoCommand.parse_args",
    "cli.prefflags.given_flags",
    "control.mapper.streams.Mapper.read",
    "node.netmon.linux.read_state",
}


def python_parsers() -> Iterator[str]:
    """Public functions called like parsers, and all that decode JSON."""
    for path in SOURCE.rglob("*.py"):
        if "testing" in path.parts:
            continue
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for prefix, function in _functions(ast.parse(path.read_text()), ""):
            name = f"{module}.{prefix}{function.name}"
            if (PARSES.match(function.name) or DECODES.search(ast.unparse(function))) and name not in NO_INPUT:
                yield name


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


def rust_parsers() -> Iterator[str]:
    for path in RUST.rglob("*.rs"):
        for found in re.finditer(r"pub(?:\([a-z]+\))? fn (parse\w*|classify)\b", path.read_text()):
            yield f"rust:{path.relative_to(RUST).as_posix()}::{found[1]}"


def command_line_values() -> Iterator[str]:
    """Every flag and argument that takes a value; a switch can only be misspelt."""
    for verb in VERBS:
        yield from _values(verb, importlib.import_module(f"buri.cli.{verb}").command)
    for action in daemon.command_line()._actions:
        if action.nargs != 0:
            yield f"burid:{action.option_strings[0]}"


def _values(name: str, command: click.Command) -> Iterator[str]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for verb in command.list_commands(context):
            found = command.get_command(context, verb)
            assert found is not None
            yield from _values(f"{name} {verb}", found)
        return
    for parameter in command.params:
        if not (isinstance(parameter, click.Option) and parameter.is_flag):
            yield f"cli:{name} {parameter.opts[0]}"


def variables() -> Iterator[str]:
    text = "\n".join(path.read_text() for path in SOURCE.rglob("*.py") if "testing" not in path.parts)
    yield from (f"variable:{name}" for name in re.findall(r'environ(?:\.get\(|\[)"(\w+)"', text))
    yield from (f"variable:{name}" for name in re.findall(r'envvar="(\w+)"', text))
    yield from (f"variable:{name}X" for name in re.findall(r'VARIABLE_PREFIX = "(\w+)"', text))
    yield from (f"variable:{name}" for name in re.findall(r'"(BURI_[A-Z]+(?:_[A-Z]+)*)"', text))


def files() -> Iterator[str]:
    for path in SOURCE.rglob("*.py"):
        for found in re.finditer(r'^(?:\w*_FILE|FILE_NAME) = "([^"]+)"', path.read_text(), re.M):
            yield f"file:{found[1]}"


def doors() -> Iterator[str]:
    """LocalAPI's endpoints, admin verbs, the control server's paths."""

    endpoints = (SOURCE / "node" / "localapi" / "endpoints.py").read_text()
    yield from (f"localapi:{name}" for name in re.findall(r'^ +"([a-z/-]+)": {"[A-Z]', endpoints, re.M))
    for verb in adminapi.Request.__args__:
        yield f"admin:{verb.__struct_config__.tag}"
    front = SOURCE / "control" / "noisefront"
    for name in ("machineroutes.py", "pages.py", "http1.py"):
        for path in re.findall(r'"(/[\w/-]*)"', (front / name).read_text()):
            yield f"http:{path}"
    pages = (SOURCE / "web" / "signinpages.py").read_text()
    yield from (f"http:{path}" for path in re.findall(r'route\("(/[^"]+)"', pages))


def entries() -> set[str]:
    return {*python_parsers(), *rust_parsers(), *command_line_values(), *variables(), *files(), *doors()}


def test_every_input_of_the_code_has_a_row() -> None:
    patterns = [pattern for row in TABLE for pattern in row.covers]
    missing = sorted(entry for entry in entries() if not any(fnmatchcase(entry, pattern) for pattern in patterns))
    assert not missing, f"tests/faults.py does not say what these get when they are wrong: {missing}"


def test_every_row_stands_for_something_in_the_code() -> None:
    known = entries()
    idle = [pattern for row in TABLE for pattern in row.covers if not any(fnmatchcase(one, pattern) for one in known)]
    assert not idle, f"nothing in the code is called so any more: {idle}"


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.input)
def test_every_proof_is_there(row: Fault) -> None:
    assert row.proof, "a claim without a test"
    for proof in row.proof:
        name, _, test = proof.partition("::")
        word = "fn" if name.endswith(".rs") else "def"
        assert re.search(rf"\b{word} {re.escape(test)}\(", (ROOT / name).read_text()), proof
