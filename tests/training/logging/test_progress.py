"""The remaining time, estimated from the durations so far."""

import pytest

from gearshift.training.logging.console_reporter import Progress
from tests.training.facts import train_plan
from tests.training.logging.clock import Clock


def test_the_first_step_is_left_out_and_evaluations_between_steps_count():
    clock = Clock()
    progress = Progress(train_plan(total_steps=2000), clock)
    assert progress.remaining_s is None
    for step in range(1, 1002):
        clock.seconds += 60.0 if step == 1 else 0.1
        progress.stepped(step)
        clock.seconds += 3.0 if step % 100 == 0 else 0.0
        if step == 2:
            assert progress.remaining_s == pytest.approx(1998 * 0.1)
    assert progress.remaining_s == pytest.approx(999 * 0.13)
