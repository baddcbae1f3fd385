"""Lines are thinned out without losing what matters."""

import math

import pytest

from launcher.report.plots import BUCKETS, Axis, Plot, PlotLine, Plots, decimated, number


def test_a_spike_and_a_gap_of_one_point_stay():
    points = [(step, math.sin(step / 900)) for step in range(100_000)]
    points[31_337] = (31_337, 50.0)
    points[62_001] = (62_001, -50.0)
    points[77_777] = (77_777, None)
    found = decimated(points, 200)
    assert len(found) <= 3 * 200 + 2
    assert {(31_337, 50.0), (62_001, -50.0), (77_777, None)} <= set(found)
    assert found[0] == points[0] and found[-1] == points[-1]
    assert set(found) <= set(points)  # nothing is averaged
    assert [x for x, _ in found] == sorted(x for x, _ in found)


def test_a_short_line_is_left_alone():
    points = [(step, 1.0) for step in range(400)]
    assert decimated(points, 200) is points


def test_the_lines_of_a_plot_share_the_buckets():
    line = [(step, float(step % 7)) for step in range(20_000)]
    plot = Plot("loss", "number", [PlotLine(str(number), line) for number in range(5)])
    content = Plots(Axis("step", 0, 20_000), [plot]).as_json()
    counts = [len(one["x"]) for one in content["plots"][0]["lines"]]
    assert max(counts) <= 2 * BUCKETS // 5 + 2


@pytest.mark.parametrize(
    ("value", "expected"), [(0.5, 0.5), ("NaN", None), ("-Infinity", None), (math.nan, None)]
)
def test_numbers_that_json_lacks_are_gaps(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize("value", [True, "12"])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError):
        number(value)
