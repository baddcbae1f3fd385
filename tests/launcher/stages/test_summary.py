"""The lines that a pipeline ends with."""

from launcher.base import exit_codes
from launcher.run.execute import FinishedRun
from launcher.run.failures import RankReport
from launcher.stages import record, summary
from tests.launcher.stages.test_record import pipeline, result

ESTIMATE = {"total_s": 7200.0, "is_least": False, "planned_steps": 5000, "measured_steps": 19}


def lines(folder, **stages):
    loaded = pipeline(folder, **stages)
    report = RankReport("ended", exit_codes.DONE, 0, "here", 0.0)
    return summary.summary(FinishedRun(report, folder, record.summarize(loaded))).splitlines()


def test_a_stage_that_was_cut_short_names_the_estimate_and_its_basis(tmp_path):
    upper = result(estimate=ESTIMATE | {"is_least": True})
    first, second, *_ = lines(tmp_path, lower=result(estimate=ESTIMATE), upper=upper)
    basis = "(estimate from 19 measured here)"
    assert first.endswith(f", 2.0 s, all 5,000 steps would take about 2h00m {basis}")
    assert second.endswith(f", all 5,000 steps would take at least 2h00m {basis}")


def test_a_whole_stage_has_the_measured_time_only(tmp_path):
    first, second, *_ = lines(tmp_path, lower=result(estimate=None), upper=None)
    assert first.endswith(", val_loss 1.0000 at step 4, 2.0 s")
    assert second == "  upper  waiting"


def test_the_result_of_the_pipeline_has_the_estimate_of_each_stage(tmp_path):
    loaded = pipeline(tmp_path, lower=result(estimate=ESTIMATE), upper=result())
    assert [one["estimate"] for one in record.summarize(loaded)["stages"]] == [ESTIMATE, None]
