"""Measurements from a run folder: times without the warm-up, plans, and times to a metric."""

import pytest

from launcher.compare.measurements import read
from launcher.run_folder import run_folder
from tests.launcher.compare.runs_on_disk import run
from training.evaluation.early_stopping import parse_target


def test_warm_up_steps_are_left_out(tmp_path):
    assert run(tmp_path, [9, 8, 1, 2, 3, 2, 1, 2, 1, 1]).counted_s[0] == 1
    assert [*run(tmp_path, [9, 2, 4]).counted_s] == [2, 4]
    assert [*run(tmp_path, [9]).counted_s] == [9]
    assert len(run(tmp_path, [1] * 80).counted_s) == 70
    # The mean counts late batches; one of seven is warm-up.
    assert run(tmp_path, [1.0] * 6 + [5.0]).counted_s.mean() == pytest.approx(10 / 6)
    # A line that covers a warm-up step is left out whole.
    found = run(tmp_path, [9.0, *[5.0] * 4, *[1.0] * 10], window=5)
    assert len(found.seconds) == 15
    assert [*found.counted_s] == [1.0] * 10


def test_a_cut_run_keeps_the_training_plan_of_its_mode(tmp_path):
    found = run(tmp_path, [1.0] * 6, stop_after=6, evaluations={6: (2.0, 3.0)}, total=95)
    assert not found.is_whole
    assert found.planned == (95, 10)  # nine, and at the end


def test_an_early_stopped_run_plans_only_the_steps_it_took(tmp_path):
    found = run(tmp_path, [1.0] * 20, evaluations={10: (2.0, 3.0), 20: (2.1, 3.0)})
    assert found.is_whole
    assert found.planned == (20, 2)


def test_time_to_a_metric_counts_training_and_evaluation(tmp_path):
    seconds = [2.0] + [1.0] * 29
    results = {10: (3.0, 0.5), 20: (1.9, 0.25), 30: (1.5, 9.0)}
    found = run(tmp_path, seconds, evaluations=results, aim=parse_target("val_loss = 1.9"))
    assert found.reached_at_s == 21 + 0.5 + 0.25
    assert found.curve("val_loss") == [(11.5, 3.0), (21.75, 1.9), (40.75, 1.5)]
    assert not found.is_whole  # it would have continued
    never = run(tmp_path, seconds, evaluations=results, aim=parse_target("val_loss <= 1.4"))
    assert never.reached_at_s is None


def test_a_run_without_steps_and_a_half_line_are_accepted(tmp_path):
    run(tmp_path, [1.0, 2.0])
    with (tmp_path / run_folder.METRICS).open("a") as file:
        file.write('{"kind": "tra')
    found = read(tmp_path)
    assert found is not None and len(found.seconds) == 2
    (tmp_path / run_folder.METRICS).write_text("")
    assert read(tmp_path) is None
