"""A row: repeats combined, longer times extrapolated, stages added up."""

import pytest

from launcher.compare.rows import ComparisonRow, measured, staged
from tests.launcher.compare.runs_on_disk import run

ROW = ComparisonRow("language:tiny", "fast", "local")


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
