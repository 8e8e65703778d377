"""What a benchmark says: medians with their spread, tables in text and Markdown, a bar chart in SVG. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

QUIET_CORES = 0.15  # what strangers may take of the machine in a run that counts


@dataclass(frozen=True)
class Sample:
    """One measured value, and what other processes took of the machine meanwhile (in cores)."""

    value: float
    others_cores: float = 0.0

    @property
    def quiet(self) -> bool:
        """Whether the run may count."""
        return self.others_cores <= QUIET_CORES


@dataclass(frozen=True)
class Summary:
    """Median, least and greatest of the runs that count; `disturbed` when not one was quiet, so that all were taken."""

    median: float
    low: float
    high: float
    runs: int
    disturbed: bool

    def text(self, digits: int) -> str:
        """`median (low–high)`, with a * when it was disturbed."""
        mark = "*" if self.disturbed else ""
        return f"{self.median:.{digits}f}{mark} ({self.low:.{digits}f}–{self.high:.{digits}f})"


def summarize(samples: Sequence[Sample]) -> Summary | None:
    """The quiet runs' summary, all runs' when none was quiet, None when there are no runs."""
    if not samples:
        return None
    quiet = [sample.value for sample in samples if sample.quiet]
    values = quiet or [sample.value for sample in samples]
    return Summary(statistics.median(values), min(values), max(values), len(values), not quiet)


@dataclass(frozen=True)
class Metric:
    """A quantity of the table: its key in the results, heading, digits after the point, and which way is better."""

    key: str
    heading: str
    digits: int
    more_is_better: bool = True


def ratio(one: Sequence[Sample], base: Sequence[Sample]) -> str:
    """`×1.50`, or nothing where there is nothing to compare.

    Like is compared with like: the quiet runs when both have some, else all runs of both, marked with a *.
    """
    quiet = [[sample.value for sample in samples if sample.quiet] for samples in (one, base)]
    mark = "" if all(quiet) else "*"
    mine, theirs = ([sample.value for sample in samples] for samples in (one, base)) if mark else quiet
    if not mine or not theirs or not statistics.median(theirs):
        return ""
    return f"×{statistics.median(mine) / statistics.median(theirs):.2f}{mark}"


Results = Mapping[str, Mapping[str, Sequence[Sample]]]  # contender → metric key → samples


def rows(metrics: Sequence[Metric], results: Results, base: str) -> list[list[str]]:
    """A heading row, then a row a metric: each contender's summary and, but for the base's own, its ratio to `base`."""
    table = [["", *results]]
    for metric in metrics:
        cells = [metric.heading]
        base_samples = results.get(base, {}).get(metric.key, ())
        for name, found in results.items():
            samples = found.get(metric.key, ())
            summary = summarize(samples)
            if summary is None:
                cells.append("–")
            else:
                more = "" if name == base else ratio(samples, base_samples)
                cells.append(f"{summary.text(metric.digits)} {more}".rstrip())
        table.append(cells)
    return table


def text_table(table: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def markdown_table(table: Sequence[Sequence[str]]) -> str:
    """The same for a Markdown page."""
    head, *body = table
    lines = [head, ["---", *("--:" for _ in head[1:])], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass(frozen=True)
class Panel:
    """One group of bars: a title, and a summary for each contender that has one."""

    title: str
    metric: Metric
    bars: Mapping[str, Summary | None]


_COLOURS = ("#2f6f4f", "#7a8fa6", "#b48a4a", "#8c6fa0", "#b9b9b9", "#5f9ea0")
_WIDTH, _LABEL, _VALUE, _BAR, _GAP = 760, 150, 150, 18, 6


def svg_chart(title: str, panels: Iterable[Panel], footer: Sequence[str]) -> str:
    """Horizontal bars of the medians, a whisker from the least to the greatest run, readable on light and dark pages."""
    panels = [panel for panel in panels if any(panel.bars.values())]
    names = list(dict.fromkeys(name for panel in panels for name in panel.bars))
    colours = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)}
    parts = [_text(16, 30, title, size=17, weight="bold")]
    y = 52
    for panel in panels:
        better = "more is better" if panel.metric.more_is_better else "less is better"
        parts.append(_text(16, y + 14, f"{panel.title} ({better})", size=13, weight="bold"))
        y += 24
        bars = [(name, summary) for name, summary in panel.bars.items() if summary is not None]
        scale = (_WIDTH - _LABEL - _VALUE) / (max(summary.high for _, summary in bars) or 1.0)
        for name, summary in bars:
            middle = y + _BAR / 2
            left, right = (_LABEL + scale * value for value in (summary.low, summary.high))
            parts += [
                _text(_LABEL - 8, y + 13, name, anchor="end"),
                f'<rect x="{_LABEL}" y="{y}" width="{scale * summary.median:.1f}" height="{_BAR}" rx="2" '
                f'fill="{colours[name]}"/>',
                f'<path d="M{left:.1f} {middle:.1f}H{right:.1f}" stroke="#404040" stroke-width="1.5"/>',
                _text(right + 8, y + 13, f"{summary.median:.{panel.metric.digits}f}{'*' * summary.disturbed}"),
            ]
            y += _BAR + _GAP
        y += 10
    for line in footer:
        parts.append(_text(16, y + 12, line, size=11))
        y += 16
    height = y + 12
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="sans-serif" role="img" aria-label="{escape(title)}">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, *, size: int = 12, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="#202020">{escape(text)}</text>'
    )
