import pytest

from gearshift.launcher.saved_runs.differences import Difference, Tolerance
from gearshift.launcher.saved_runs.differences import compare_metrics as compare

COUNTS = {"epoch": 0.5, "samples": 8, "tokens": 80, "skipped": 0}
RESOURCES = {"step_time_s": 0.1, "host_memory_bytes": 1000}
TRAIN = {"kind": "train", "loss": 2.5, "lr": 1e-3, "grad_norm": 1.25, **COUNTS, **RESOURCES}
EVAL = {"kind": "eval", "split": "val", "metrics": {"val_loss": 2.0, "val_accuracy": 0.5}}


def written(*lines):
    return lines


def line(step, **changes):
    return {**TRAIN, "step": step, **changes}


def evaluation(step, **metrics):
    return {**EVAL, "step": step, "metrics": {**EVAL["metrics"], **metrics}}


@pytest.mark.parametrize(
    ("key", "value"),
    [("loss", 2.5000000000000004), ("grad_norm", "NaN"), ("samples", 9), ("loss_scale", 2.0)],
)
def test_a_number_that_differs_is_named_with_its_step(key, value):
    found = compare(written(line(1), line(2)), written(line(1), line(2, **{key: value})), 0, 2)
    assert found.first == Difference("train", key, None, TRAIN.get(key), value, 2)
    assert found.first.place == f"{key} of step 2"


def test_only_the_steps_of_the_replay_count():
    ours = written(*(line(step) for step in range(1, 7)))
    theirs = written(line(2, loss=0.0), line(3), line(4), line(5, loss=0.0))
    found = compare(ours, theirs, 2, 4)
    assert (found.lines, found.first) == (2, None)


def test_a_tolerance_is_relative_for_training_lines_and_norms_have_that_of_moments():
    ours = written(line(1), evaluation(1))
    theirs = written(line(1, loss=2.5 * 1.001, loss_scale=3.0), evaluation(1, val_accuracy=0.6))
    found = compare(ours, theirs, 0, 1, Tolerance(1.1e-3, 0.0))
    assert (found.lines, found.first) == (1, None)
    assert compare(ours, theirs, 0, 1, Tolerance(0.9e-3, 1.0)).first.place == "loss of step 1"
    theirs = written(line(1, grad_norm=1.25 * 1.01))
    assert compare(ours, theirs, 0, 1, Tolerance(0.0, 2e-2)).first is None
    found = compare(ours, theirs, 0, 1, Tolerance(1.0, 1e-3))
    assert found.first.place == "grad_norm of step 1"
