"""Lines are thinned out without losing what matters."""

import math

import pytest

from launcher.report.plots import BUCKETS, Plot, PlotLine, as_json, number, thinned


def test_the_lines_of_a_plot_share_the_buckets():
    line = [(step, float(step % 7)) for step in range(20_000)]
    plot = Plot("loss", "number", [PlotLine(str(number), line) for number in range(5)])
    counts = [len(one["x"]) for one in as_json("step", [plot])["plots"][0]["lines"]]
    assert BUCKETS // 5 < max(counts) <= 2 * BUCKETS // 5 + 4


def test_many_items_are_thinned_evenly_with_both_ends():
    assert thinned(range(5), 5) == range(5)
    found = thinned(range(1001), 200)
    assert len(found) == 200 and (found[0], found[-1]) == (0, 1000)


def test_numbers_that_json_lacks_are_gaps_and_what_is_no_number_is_refused():
    assert list(map(number, (0.5, "NaN", "-Infinity", math.nan))) == [0.5, None, None, None]
    for value in (True, "12"):
        with pytest.raises(TypeError):
            number(value)
