"""A row: times without the warm-up, repeats combined, longer times extrapolated, stages added up."""

import math

import pytest

from gearshift.launcher.compare.rows import ComparisonRow, measured, read, staged
from gearshift.launcher.run_folder import run_folder
from gearshift.training.evaluation.early_stopping import parse_target
from tests.launcher.compare.runs_on_disk import run

ROW = ComparisonRow("language:tiny", "fast", "local")


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


def test_an_evaluation_that_is_not_a_number_reaches_no_metric(tmp_path):
    results = {10: (3.0, 0.5), 20: (math.nan, 0.25), 30: (1.5, 9.0)}
    found = run(tmp_path, [1.0] * 30, evaluations=results, aim=parse_target("val_loss = 1.9"))
    assert found.reached_at_s == 30 + 0.5 + 0.25 + 9.0


def test_a_run_without_steps_and_a_half_line_are_accepted(tmp_path):
    run(tmp_path, [1.0, 2.0])
    with (tmp_path / run_folder.METRICS).open("a") as file:
        file.write('{"kind": "tra')
    found = read(tmp_path)
    assert found is not None and len(found.seconds) == 2
    (tmp_path / run_folder.METRICS).write_text("")
    assert read(tmp_path) is None


@pytest.fixture
def cut(tmp_path):
    """Two repeats of five steps of a plan of a hundred, with an evaluation at the end."""
    results = {5: (2.0, 4.0)}
    return [
        run(tmp_path / "1", [9.0, 1.0, 1.0, 2.0, 2.0], stop_after=5, evaluations=results),
        run(tmp_path / "2", [9.0, 3.0, 3.0, 3.0, 3.0], stop_after=5, evaluations=results),
    ]


def test_a_step_is_the_median_over_all_repeats(cut):
    row = measured(ROW, cut)
    assert row.step_s == 2.5
    assert row.step_spread_s == (1.75, 3.0)
    assert row.step_mean_s == (1.5 + 3.0) / 2
    assert row.samples_per_s == 8 / 2.25
    assert row.units_per_s == pytest.approx((80 / 1.5 + 80 / 3) / 2)


def test_longer_times_add_the_evaluations_due(cut):
    row = measured(ROW, cut)
    assert row.total_s == 100 * 2.25 + 10 * 4.0
    assert row.epoch_s == 20 * 2.25 + 2 * 4.0  # an epoch is a fifth of the plan
    assert row.extrapolated == {"epoch": True, "total": True}


def test_peak_memory_is_that_of_the_device_where_there_is_one(tmp_path):
    on_cpu = [
        run(tmp_path / f"{n}", [1.0], peak={"device": None, "host": n * 10, "host_growth": n})
        for n in (3, 5, 4)
    ]
    row = measured(ROW, on_cpu)
    assert (row.device_peak_bytes, row.host_peak_bytes, row.peak_memory_bytes) == (None, 50, 5)
    on_gpu = run(tmp_path / "gpu", [1.0], peak={"device": 7, "host": 90, "host_growth": 60})
    row = measured(ROW, [on_gpu])
    assert (row.device_peak_bytes, row.host_peak_bytes, row.peak_memory_bytes) == (7, 90, 7)


def test_stages_add_times_and_take_the_largest_memory(tmp_path):
    facts = {"peak": {"device": None, "host": 900, "host_growth": 700}, "parameters": 50}
    small = run(tmp_path / "1", [1.0] * 100, evaluations={100: (3.0, 5.0)}, **facts)
    first = measured(ROW, [small])
    last = measured(ROW, [run(tmp_path / "2", [2.0] * 100, evaluations={100: (2.0, 5.0)})])
    row = staged(ROW, [first, last])
    assert row.total_s == 105.0 + 205.0
    assert (row.peak_memory_bytes, row.parameters) == (700, 1000)
    assert row.metric["value"] == 2.0
    assert row.step_s is None
