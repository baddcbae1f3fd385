"""Curves of long runs are thinned without the loss of an extreme."""

import pytest

from launcher.report.plots import BUCKETS, ThinnedLine


@pytest.mark.parametrize("count", [1, 4 * BUCKETS, 4 * BUCKETS + 1, 50_001])
def test_thinning_while_reading_loses_no_extreme_of_any_part(count):
    points = [(x, float((x * 7919) % 10_007)) for x in range(count)]
    line = ThinnedLine()
    for point in points:
        line.add(point)
    found = line.points
    assert set(found) <= set(points) and (found[0], found[-1]) == (points[0], points[-1])
    if count <= 4 * BUCKETS:
        assert found == points
    for start in range(0, count, 1024):
        part = [y for x, y in points[start : start + 1024]]
        kept = [y for x, y in found if start <= x < start + 1024]
        assert (min(kept), max(kept)) == (min(part), max(part))
