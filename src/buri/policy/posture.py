"""Device posture: conditions on a node's attributes, as `postures` and `srcPosture` use them.

Source: Tailscale's device posture reference. `node:os == 'linux'`, `node:tsVersion >= '1.40'`, `custom:tier IN ['a']`,
`custom:x IS SET`. A node without the attribute fails every condition but NOT SET, != and NOT IN.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

AttributeValue = str | bool | float | int
_CONDITION = re.compile(
    r"^\s*([A-Za-z][\w-]*:[\w./-]+)\s*(==|!=|<=|>=|<|>|NOT\s+IN\b|IN\b|IS\s+SET\b|NOT\s+SET\b)\s*(.*?)\s*$", re.DOTALL
)
_VALUE = re.compile(r"'([^']*)'|\"([^\"]*)\"|(true|false)\b|(-?\d+(?:\.\d+)?)")


class Condition(msgspec.Struct, frozen=True):
    """`attribute operator values`; `values` has one entry but for IN and NOT IN (any number), SET and NOT SET (none)."""

    attribute: str
    operator: str
    values: tuple[AttributeValue, ...] = ()

    def holds(self, attributes: Mapping[str, AttributeValue]) -> bool:
        """Whether a node with these attributes passes."""
        value = attributes.get(self.attribute)
        match self.operator:
            case "IS SET":
                return value is not None
            case "NOT SET":
                return value is None
            case "==" | "IN":
                return value is not None and any(_same(value, wanted) for wanted in self.values)
            case "!=" | "NOT IN":
                return value is None or not any(_same(value, wanted) for wanted in self.values)
        if value is None:
            return False
        left, right = _order(value), _order(self.values[0])
        match self.operator:
            case "<":
                return left < right
            case "<=":
                return left <= right
            case ">":
                return left > right
        return left >= right


def _same(left: AttributeValue, right: AttributeValue) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _order(value: AttributeValue) -> tuple[tuple[int, float, str], ...]:
    """A key by which versions sort as people expect: 1.9 before 1.40."""
    parts = re.findall(r"\d+|[^\W\d_]+", value.lower()) if isinstance(value, str) else [value]
    return tuple((1, float(p), "") if not isinstance(p, str) or p.isdecimal() else (0, 0.0, p) for p in parts)


def parse_condition(text: str) -> Condition:
    """Read one condition; raises ValueError."""
    found = _CONDITION.match(text)
    if found is None:
        raise ValueError(f'posture condition "{text}" is not ATTRIBUTE OPERATOR VALUE')
    attribute, operator, rest = found.groups()
    operator = " ".join(operator.split())
    if operator in ("IS SET", "NOT SET"):
        if rest:
            raise ValueError(f'posture condition "{text}": nothing may follow {operator}')
        return Condition(attribute, operator)
    listed = operator in ("IN", "NOT IN")
    if listed and not (rest.startswith("[") and rest.endswith("]")):
        raise ValueError(f'posture condition "{text}": {operator} needs a list in brackets')
    values: list[AttributeValue] = []
    for item in _items(rest[1:-1]) if listed else [rest]:
        one = _VALUE.fullmatch(item)
        if one is None:
            raise ValueError(f'posture condition "{text}": {item!r} is no value; quote text with \'')
        single, double, truth, number = one.groups()
        if truth is not None:
            values.append(truth == "true")
        elif number is not None:
            values.append(float(number))
        else:
            values.append(single if single is not None else double)
    return Condition(attribute, operator, tuple(values))


def _items(text: str) -> list[str]:
    return [item.strip() for item in re.findall(r"\s*('[^']*'|\"[^\"]*\"|[^,]+)\s*(?:,|\Z)", text)]
