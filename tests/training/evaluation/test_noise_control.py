import math

import pytest

from gearshift.training.evaluation.goals import check_noise
from tests.training.tiny import RecordingCallback, TinyTask, one_rank, run_tiny

ALL = {"min": 0.1, "max": 0.3, "chance": 0.2}


def control(value, **band):
    """The facts that are reported for a metric with this band."""
    events = {}
    leak = check_noise({"iou": band}, {"iou": value}, events.__setitem__)
    assert (leak is None) is events["control"]["at_chance"]
    return events["control"]


@pytest.mark.parametrize(
    ("value", "band", "at_chance"),
    [
        (0.2, ALL, True),
        (0.1, ALL, True),
        (0.3, ALL, True),
        (0.31, ALL, False),
        (0.09, ALL, False),
        (0.09, {"max": 0.3}, True),
        (9.0, {"min": 0.1}, True),
        (math.nan, ALL, False),
    ],
)
def test_a_metric_is_at_chance_inside_its_band(value, band, at_chance):
    assert control(value, **band)["at_chance"] is at_chance


def test_a_run_with_its_control_at_chance_completes_and_reports_it():
    recorder = RecordingCallback()
    run = run_tiny(one_rank(), TinyTask(control={"error": {"min": 0.0}}), recorder)
    assert (run.outcome.status, run.outcome.exit_code) == ("completed", 0)
    [facts] = [facts for kind, facts in recorder.events if kind == "control"]
    assert facts["at_chance"] is True
    assert facts["value"] == recorder.evaluations[-1].metrics["error"]


def test_a_run_whose_control_is_better_than_chance_fails():
    run = run_tiny(one_rank(), TinyTask(control={"error": {"min": 1e9}, "units": {"chance": 1.0}}))
    assert (run.outcome.status, run.outcome.exit_code) == ("failed", 1)
    assert run.outcome.reason.startswith("the noise control leaks: error ")
    assert "units" not in run.outcome.reason
