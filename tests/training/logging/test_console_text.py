"""The console lines of a run, to the letter."""

from training.logging import console_text
from training.logging.progress import Position

HALF = Position(50, 100, 5.0, 65.0, False, None)


def test_the_eta_marks_a_lower_bound():
    assert console_text.render_eta(Position(1, 9, 0.0, None, True, None)) == "ETA –"
    assert console_text.render_eta(Position(2, 9, 0.0, 192.0, True, None)) == "ETA ≥ 3m12s"
    assert console_text.render_eta(Position(2, 9, 0.0, 192.0, False, None)) == "ETA 3m12s"
