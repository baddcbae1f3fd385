"""The live view shows the run in lines that never wrap."""

import io
import math

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.training.facts import logged
from training.logging.live_view import LiveView, sparkline
from training.logging.progress import Curve, Position

VIEW = LiveView(
    Position(40, 100, 12.0, 30.0, False, logged(40)),
    "tokens",
    {"ram": 63.0, "gpu": 96.0, "cpu": 50.0},
    {"ram": 90.0, "gpu": 95.0},
    [3.0, 2.75, 2.5],
    "evaluated val at step 40: loss 2.2500, the best so far, and a longer text",
    next_save=60,
)


def lines(view, width, encoding="utf-8"):
    """What a terminal of `width` columns shows."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    Console(file=stream, width=width, highlight=False).print(view)
    stream.seek(0)
    return stream.read().splitlines()


def test_progress_numbers_memory_event_and_save_have_a_line_each():
    bar, numbers, memory, event, save = lines(VIEW, 100)
    assert bar.endswith("step 40/100  12 s elapsed  ETA 30 s") and bar.startswith("━━")
    assert numbers.startswith("loss   2.5000 █▅▁  lr 1.00e-03")
    assert memory == "ram ━━━━━━──── 63% of 90%  gpu ━━━━━━━━━━ 96% of 95%"
    assert event.startswith("last  evaluated val at step 40: loss 2.2500")
    assert save == "next  save at step 60, in 2.0 s"


@pytest.mark.parametrize("width", [20, 40, 59, 60])
def test_no_line_wraps(width):
    shown = lines(VIEW, width)
    assert len(shown) == 5
    assert max(map(cell_len, shown)) <= width
    if width == 40:
        assert shown[0].rstrip().endswith("step 40/100  ETA 30 s") and shown[0].startswith("━━━")


def test_a_sparkline_spans_the_range_of_its_means():
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0] * 99) == "▁" * 16
    assert sparkline([4.0, 4.0, 0.0, 0.0], width=2) == "█▁"
    assert sparkline([]) == ""


def test_a_curve_keeps_the_course_in_bounded_memory():
    curve = Curve()
    for number in range(10_000):
        curve.add(float(number))
        curve.add(math.nan)
    points = curve.points
    assert 64 <= len(points) < 128
    assert list(points) == sorted(points)
    assert points[0] < 200 and points[-1] > 9_700
