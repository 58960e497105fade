"""How a report draws: quantities, axes, curves and charts."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.report import quantities
from agent_runtime.report.axis import (
    count_axis,
    log_factor_axis,
    log_time_axis,
    marked_axis,
    ratio_axis,
    time_axis,
)
from agent_runtime.report.curve import MAX_POINTS, Curve
from agent_runtime.report.scatter_chart import Dot, Kind, ScatterAxes, scatter_chart
from agent_runtime.report.svg_chart import Frame, Sample, Series, cdf_chart, line_chart

FRAME = Frame(340, 230)
EMPTY = np.zeros(0)

# quantities


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (math.nan, "\N{EN DASH}"),
        (0.0, "0 s"),
        (0.312, "312 ms"),
        (0.0211, "21.1 ms"),
        (0.00085, "850 \N{MICRO SIGN}s"),
        (1e-9, "<1 \N{MICRO SIGN}s"),
        (0.99996, "1.00 s"),
        (4.214, "4.21 s"),
        (59.94, "59.9 s"),
        (59.97, "1 m 00 s"),
        (725.0, "12 m 05 s"),
        (3_575.0, "59 m 35 s"),
        (3_599.9, "1 h 00 m"),
        (3_725.0, "1 h 02 m"),
        (273_600.0, "3 d 04 h"),
    ],
)
def test_seconds_read_in_the_unit_people_expect(value, text):
    assert quantities.seconds(value) == text


@pytest.mark.parametrize(
    ("render", "value", "text"),
    [
        (quantities.count, 43_120, "43,120"),
        (quantities.count, 1_250_000, "1.25 M"),
        (quantities.count, 999_900_000, "1.00 B"),
        (quantities.ratio, 0.934, "93.4 %"),
        (quantities.ratio, 1.0, "100 %"),
        (quantities.ratio, 0.99999, ">99.9 %"),
        (quantities.ratio, 0.00001, "<0.1 %"),
        (quantities.ratio, 0.0, "0 %"),
        (quantities.factor, 1.42, "1.42x"),
        (quantities.num_bytes, 3.4e9, "3.40 GB"),
        (quantities.num_bytes, 512, "512 B"),
        (quantities.short_seconds, 0.2, "200 ms"),
        (quantities.short_seconds, 5_400.0, "1 h 30 m"),
        (quantities.short_seconds, 300.0, "5 m"),
    ],
)
def test_quantities_read_as_people_write_them(render, value, text):
    assert render(value) == text


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_every_finite_quantity_can_be_read_and_is_short(value):
    renders = (
        quantities.seconds,
        quantities.short_seconds,
        quantities.count,
        quantities.ratio,
        quantities.factor,
        quantities.num_bytes,
    )
    for render in renders:
        assert 0 < len(render(value)) <= 24
    assert quantities.rate(value, "turns").endswith("turns/s")


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_seconds_never_read_sixty_of_a_unit(value):
    assert not re.search(r"(?<![\d.,])(60(\.0)? [sm]|24 h|1,?000 m?s)\b", quantities.seconds(value))


# curves and axes


def test_a_timeline_keeps_its_spike_when_thinned():
    y = np.zeros(50_000)
    y[31_415] = 1.0
    thin = Curve.of(np.arange(50_000.0), y).thinned_by_extremes()
    assert thin.x.size <= MAX_POINTS + 2
    assert thin.y.max() == 1.0
    assert thin.x[0] == 0
    assert thin.x[-1] == 49_999
    assert (np.diff(thin.x) > 0).all()


def test_a_thinned_distribution_keeps_only_exact_points_and_both_ends():
    values = np.random.default_rng(0).lognormal(0, 1, 30_000)
    whole = Curve.cumulative(values)
    thin = whole.thinned_by_rank()
    assert thin.x.size <= MAX_POINTS
    assert set(zip(thin.x, thin.y, strict=True)) <= set(zip(whole.x, whole.y, strict=True))
    assert thin.x[-1] == values.max()
    assert thin.y[-1] == 1.0


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20),
    st.integers(min_value=2, max_value=20),
)
def test_axes_have_few_rising_ticks_within_their_ends_whatever_the_values(values, max_ticks):
    array = np.array(values, dtype=np.float64)
    axes = (
        log_time_axis(array, max_ticks),
        time_axis(array, max_ticks),
        count_axis(array, max_ticks),
        ratio_axis(),
    )
    for axis in axes:
        assert axis.low < axis.high
        assert 1 <= len(axis.ticks) <= max(max_ticks + 1, 5)
        assert list(axis.ticks) == sorted(set(axis.ticks))
        assert axis.low <= axis.ticks[0] <= axis.ticks[-1] <= axis.high * (1 + 1e-9)
        places = axis.fraction(array[np.isfinite(array)])
        assert ((places >= 0) & (places <= 1 + 1e-9)).all()


def test_a_log_axis_ticks_whole_minutes_and_hours_not_hundreds_of_seconds():
    axis = log_time_axis(np.array([20.0, 7_000.0]), 6)
    assert [axis.render(tick) for tick in axis.ticks] == [
        "30 s",
        "1 m",
        "3 m",
        "10 m",
        "30 m",
        "1 h",
    ]


# charts


@pytest.mark.parametrize(
    "values",
    [
        EMPTY,
        np.array([0.5]),
        np.full(1_000, 0.02),
        np.array([0.0, 0.0]),
        np.array([1e-300, 1e300]),
        np.array([math.nan, math.inf, 1.0]),
        np.random.default_rng(1).lognormal(0, 3, 20_000),
    ],
)
def test_charts_survive_any_series_and_are_well_formed_xml(values):
    cdf = cdf_chart([Sample("base", values, "c-base")], frame=FRAME, name="TTFT")
    time_s = np.arange(values.size, dtype=np.float64)
    series = [Series("kv", time_s, values, "c-low", filled=True)]
    x, y = time_axis(time_s, 5), count_axis(values, 5)
    for svg in (cdf, line_chart(series, x, y, frame=FRAME, name="KV")):
        root = ET.fromstring(svg)  # noqa: S314 - our own text
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert "nan" not in svg.lower()
        assert "inf" not in svg.lower()
        assert len(svg) < 30_000


def test_a_chart_of_nothing_says_so():
    assert "nothing was measured" in cdf_chart([], frame=FRAME, name="TTFT")


def test_a_chart_reads_out_the_values_under_the_pointer():
    svg = cdf_chart([Sample("base", np.full(10, 0.02), "c-base")], frame=FRAME, name="TPOT")
    assert "base: p50 20.0 ms" in svg
    assert "base: 0 %" in svg
    assert "base: 100 %" in svg


def test_every_mark_lies_inside_its_chart():
    series = [Series("a long label of a run", np.arange(9.0), np.arange(9.0), "c-low")] * 7
    svg = line_chart(series, time_axis(np.arange(9.0), 5), count_axis(np.arange(9.0), 5),
                     frame=FRAME, name="x")  # fmt: skip
    for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):  # noqa: S314 - our own text
        assert 0 <= float(element.get("x") or -1) <= FRAME.width
        assert 0 <= float(element.get("y") or -1) <= FRAME.height


def test_a_factor_axis_holds_its_values_and_names_them_as_factors() -> None:
    axis = log_factor_axis(np.array([1.2, 37.0]), 6)
    assert axis.low <= 1.2
    assert axis.high >= 37.0
    assert [axis.render(tick) for tick in axis.ticks] == ["1x", "2x", "5x", "10x", "20x"]
    assert axis.fraction(np.array([axis.low, axis.high])).tolist() == pytest.approx([0.0, 1.0])


def test_an_axis_of_few_marks_has_them_within_its_ends() -> None:
    axis = marked_axis([0.6, 1.2])
    assert axis.ticks == (0.6, 1.2)
    assert axis.low < 0.6
    assert axis.high > 1.2
    assert [axis.render(tick) for tick in axis.ticks] == ["0.6", "1.2"]
    alone = marked_axis([1.0])
    assert alone.low < 1.0 < alone.high


def test_labels_of_dots_in_one_place_stand_on_lines_of_their_own_within_the_plot() -> None:
    kinds = [Kind(f"c-{n}", [Dot(1.0, 1.0, "said", on_front=True, label=f"p{n}")]) for n in "abcd"]
    axes = ScatterAxes(marked_axis([1.0, 2.0]), "x", marked_axis([1.0, 2.0]))
    picture = scatter_chart(kinds, axes, frame=Frame(400, 300), name="four")
    found = re.findall(r'<text class="c-\w"[^>]* y="([\d.]+)">p\w<', picture)
    heights = sorted(float(y) for y in found)
    assert len(heights) == 4
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 12
    assert heights[0] > 12
    assert heights[-1] < 300 - 42
