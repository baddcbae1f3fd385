"""The live view shows the run in lines that never wrap."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.training.facts import logged
from training.logging.progress import Position
from training.logging.terminal import LiveView

VIEW = LiveView(
    Position(40, 100, 12.0, 30.0, logged(40)),
    "tokens",
    {"ram": 63.0, "gpu": 96.0, "cpu": 50.0},
    "evaluated val at step 40: loss 2.2500, the best so far, and a longer text",
)


def lines(view, width, encoding="utf-8"):
    """What a terminal of `width` columns shows."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    Console(file=stream, width=width, highlight=False).print(view)
    stream.seek(0)
    return stream.read().splitlines()


def test_progress_numbers_and_event_have_a_line_each():
    bar, numbers, event = lines(VIEW, 100)
    assert bar.endswith("step 40/100  12 s elapsed  ETA 30 s") and bar.startswith("━━")
    assert numbers.startswith("loss   2.5000  lr 1.00e-03") and "ram 63%" in numbers
    assert event.startswith("last  evaluated val at step 40: loss 2.2500")


@pytest.mark.parametrize("width", [20, 59, 60, 80])
def test_no_line_wraps(width):
    shown = lines(VIEW, width)
    assert len(shown) == 3
    assert max(map(cell_len, shown)) <= width
    assert "step 40/100" in shown[0]
