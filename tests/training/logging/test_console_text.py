"""The console lines of a run, to the letter."""

from tests.training.facts import logged
from training.logging import console_text
from training.logging.progress import Position

HALF = Position(50, 100, 5.0, 65.0, False, None)


def test_a_logged_step_is_one_line_aligned_with_others_of_what_is_known():
    assert console_text.render_step(logged(5), HALF, "tokens") == (
        "step         5/100  loss   2.5000  lr 1.00e-03  norm   0.7500  41.0k tokens/s  300.0 MiB  ETA 1m05s"
    )
    small = console_text.render_step(logged(5, loss=12.5, units_per_s=7.0), HALF, "tokens")
    other = logged(100, loss=0.0625, host_memory_bytes=2**34)
    large = console_text.render_step(other, HALF, "tokens")
    assert len(small) == len(large)
    slashes = [[i for i, c in enumerate(line) if c == "/"] for line in (small, large)]
    assert slashes[0] == slashes[1]
    known = logged(5, mfu=0.4321, skipped=2, parts={"ce": 2.0}, device_memory_bytes=2**33)
    line = console_text.render_step(known, HALF, "tokens")
    assert "ce   2.0000" in line and "mfu 43.2%" in line and "skipped 2" in line
    assert "8.0 GiB" in line and "300.0 MiB" not in line


def test_the_eta_marks_a_lower_bound():
    assert console_text.render_eta(Position(1, 9, 0.0, None, True, None)) == "ETA –"
    assert console_text.render_eta(Position(2, 9, 0.0, 192.0, True, None)) == "ETA ≥ 3m12s"
    assert console_text.render_eta(Position(2, 9, 0.0, 192.0, False, None)) == "ETA 3m12s"
