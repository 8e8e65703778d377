"""Go's manners on click: the flags people know from Tailscale's command line work here the same way.

`--flag=false` and bare `--flag` for switches, `-c=5`, `-flag` with one dash, durations such as `1m30s`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")


if TYPE_CHECKING:
    _FloatParam = click.ParamType[float]
else:
    _FloatParam = click.ParamType  # generic for type checkers alone before click 8.4


class Duration(_FloatParam):
    """`1m30s`, `500ms`, or a bare number of seconds; the value is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value).strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        if text and not _PART.sub("", text):
            return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
        self.fail(f"{value!r} is not a duration; write it like 5s or 1m30s.", param, ctx)


DURATION = Duration()


class Switch(click.Option):
    """A switch that also takes `=true` and `=false`; made by `switch`."""


def switch(*names: str, default: bool | None = False, help: str) -> Callable[[_F], _F]:
    """An option of that kind; with `default=None` its absence can be told."""
    return click.option(*names, cls=Switch, type=click.BOOL, default=default, metavar="", help=help)


class GoCommand(click.Command):
    """A command whose arguments may be written in Go's ways; shows an example in its help."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        if example:
            kwargs["epilog"] = "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.splitlines())
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, rewrite(self.params, args))


def rewrite(params: list[click.Parameter], args: list[str]) -> list[str]:
    """Arguments in Go's ways as click wants them."""
    options = [param for param in params if isinstance(param, click.Option)]
    known = {name: option for option in options for name in option.opts}
    rewritten: list[str] = []
    for place, arg in enumerate(args):
        if arg == "--":
            return rewritten + args[place:]
        name, equals, value = arg.partition("=")
        if name.startswith("-") and not name.startswith("--") and f"-{name}" in known:
            name = f"-{name}"
        option = known.get(name)
        if isinstance(option, Switch):
            rewritten.append(f"{name}={value if equals else 'true'}")
        elif option is not None and equals and len(name) == 2:
            rewritten += [name, value]
        else:
            rewritten.append(name + equals + value)
    return rewritten
