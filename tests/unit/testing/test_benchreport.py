"""The benchmark's words: what counts, what a table and a chart show."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from buri.testing.benchload import delivered
from buri.testing.benchreport import (
    Metric,
    Panel,
    Sample,
    Summary,
    markdown_table,
    ratio,
    rows,
    summarize,
    svg_chart,
    text_table,
)
from buri.testing.lab import LabError

TCP = Metric("tcp", "TCP, Gbit/s", 2)
SPEEDS = {"buri": {"tcp": [Sample(6.0), Sample(5.0), Sample(7.0)]}, "tailscaled": {"tcp": [Sample(3.0)]}, "bare": {}}


def test_a_disturbed_run_does_not_count_beside_quiet_ones() -> None:
    assert summarize([Sample(5, 0.1), Sample(1, 0.9), Sample(7, 0.15)]) == Summary(6, 5, 7, 2, disturbed=False)


def test_runs_that_were_all_disturbed_count_and_are_marked() -> None:
    found = summarize([Sample(5, 0.5), Sample(3, 0.9)])
    assert found == Summary(4, 3, 5, 2, disturbed=True)
    assert found.text(1) == "4.0* (3.0–5.0)"


def test_no_runs_have_no_summary_and_no_ratio() -> None:
    assert summarize([]) is None
    assert ratio([], [Sample(1)]) == ""
    assert ratio([Sample(1)], []) == ""
    assert ratio([Sample(1)], [Sample(0)]) == ""


def test_a_ratio_never_sets_a_disturbed_run_beside_a_quiet_one() -> None:
    base = [Sample(2), Sample(1, 0.9), Sample(1, 0.8)]
    assert ratio([Sample(6), Sample(3, 0.9)], base) == "×3.00"
    assert ratio([Sample(3, 0.9)], base) == "×3.00*"


def test_the_table_sets_each_contender_beside_the_base() -> None:
    table = rows([TCP], SPEEDS, "tailscaled")
    assert table == [
        ["", "buri", "tailscaled", "bare"],
        ["TCP, Gbit/s", "6.00 (5.00–7.00) ×2.00", "3.00 (3.00–3.00)", "–"],
    ]
    assert markdown_table(table).splitlines()[1] == "| --- | --: | --: | --: |"
    head, line = text_table(table).splitlines()
    assert head.index("buri") + 4 == line.index("×2.00") + 5


def test_the_chart_is_xml_and_scales_its_bars() -> None:
    bars = {name: summarize(found.get("tcp", ())) for name, found in SPEEDS.items()}
    chart = ElementTree.fromstring(svg_chart("A <chart>", [Panel("TCP", TCP, bars)], ["a & b"]))
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(one.attrib["width"]) for one in chart.iter(f"{space}rect")][1:]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert "A <chart>" in [one.text for one in chart.iter(f"{space}text")]


def test_a_panel_without_results_is_left_out() -> None:
    assert "UDP" not in svg_chart("chart", [Panel("UDP", TCP, {"buri": None})], [])


def test_datagrams_that_arrived_are_what_the_receiver_counted() -> None:
    said = "[  5]   0.00-2.00   sec  9.1 MBytes  38.4 Mbits/sec  0.003 ms  1000/5000 (20%)  receiver\n"
    assert delivered(said) == 2000
    with pytest.raises(LabError):
        delivered("iperf3: error")
