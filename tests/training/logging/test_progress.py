"""The remaining time, estimated from the durations so far."""

import pytest

from tests.training.facts import train_plan
from tests.training.logging.clock import Clock
from training.logging.progress import Progress


def run(plan, until, step_s=0.1, evaluation_s=0.0, save_s=0.0, best_at=()):
    """Progress after `until` steps of given durations."""
    clock = Clock()
    progress = Progress(plan, clock)
    for step in range(plan.first_step + 1, until + 1):
        clock.seconds += step_s
        progress.stepped(step)
        if plan.eval_every and step % plan.eval_every == 0:
            clock.seconds += evaluation_s
            progress.evaluated()
        if step in best_at or (plan.save_every and step % plan.save_every == 0):
            clock.seconds += save_s
            progress.saved(step)
    return progress


def test_evaluations_and_saves_to_come_are_counted():
    plan = train_plan(total_steps=100, eval_every=20, save_every=50)
    position = run(plan, 60, evaluation_s=3.0, save_s=2.0).position()
    # 40 steps, evaluations at 80 and 100, a save at 100.
    assert position.remaining_s == pytest.approx(40 * 0.1 + 2 * 3.0 + 1 * 2.0)
    assert not position.remaining_is_least


def test_the_first_step_is_left_out_and_the_eta_follows_a_change_of_speed():
    clock = Clock()
    progress = Progress(train_plan(total_steps=2000), clock)
    for step in range(1, 1001):
        clock.seconds += 60.0 if step == 1 else 0.1 if step <= 500 else 0.4
        progress.stepped(step)
        if step == 2:
            assert progress.position().remaining_s == pytest.approx(1998 * 0.1)
    assert progress.position().remaining_s == pytest.approx(1000 * 0.4, rel=0.01)
