"""Rows from run folders: baselines, failures, stages; and the load by other programs."""

import json
from dataclasses import replace

import pytest

from gearshift.launcher.compare import runner
from gearshift.launcher.compare.candidates import ModeCandidate, PlannedComparison
from gearshift.launcher.compare.study import Study
from gearshift.launcher.config.provenance import CliArgs
from tests.launcher.compare.runs_on_disk import run
from tests.launcher.given import resolved

HALF = {"step_time": {"at_most": 0.5}}


def candidate(mode, engine="local", promises=None, **stages):
    settings = replace(resolved(), promises=promises or {})
    of_stages = {name: replace(settings, promises=given) for name, given in stages.items()}
    return ModeCandidate(mode, engine, CliArgs(), settings, of_stages)


@pytest.fixture
def rows(tmp_path):
    """Rows of candidates, each with the folders of its repeats."""

    def make(*pairs):
        candidates, found = map(list, zip(*pairs, strict=True))
        planned = PlannedComparison(candidates, tmp_path, Study({"1": ()}), {"stop.after": 3})
        return runner._rows(planned, found, {})

    return make


def folder(path, seconds, **result):
    run(path, [seconds] * 3, stop_after=3, evaluations={3: (2.0, 1.0)}, **result)
    return path


def test_each_engine_is_compared_with_mode_default_under_the_same_engine(rows, tmp_path):
    default, ddp, fast, fast_ddp = rows(
        (candidate("default"), {"1": folder(tmp_path / "a", 1.0)}),
        (candidate("default", "ddp"), {"1": folder(tmp_path / "b", 4.0)}),
        (candidate("fast", promises=HALF), {"1": folder(tmp_path / "c", 0.5)}),
        (candidate("fast", "ddp", HALF), {"1": folder(tmp_path / "d", 3.0)}),
    )
    assert default.promises == ddp.promises == ()
    assert [promise.measured for promise in fast.promises] == [0.5]
    assert [(promise.measured, promise.kept) for promise in fast_ddp.promises] == [(0.75, False)]


def test_a_study_compares_modes_under_their_engine_and_engines_under_mode_default(tmp_path):
    candidates = [candidate(mode, engine) for mode in ("default", "fast") for engine in ("a", "b")]
    planned = PlannedComparison(candidates, tmp_path, Study({"seed1": ()}, seeds=1))
    folders = [planned.run_folder(number, "seed1") for number in range(4)]
    runs = [{"seed1": folder(path, 1.0)} for path in folders]
    found = runner._rows(planned, runs, {})
    references = [row.study.reference for row in found]
    assert references == [None, "default a", "default a", "default b"]
    assert found[1].study.difference.mean == 0


def test_a_failed_run_has_a_row_with_its_error(rows, tmp_path):
    default, fast, lite = rows(
        (candidate("default"), {"1": folder(tmp_path / "a", 1.0)}),
        (candidate("fast", promises=HALF), {"1": "no memory"}),
        (candidate("lite"), {}),
    )
    assert lite.error == "not run"
    assert default.error is None
    assert fast.error == "no memory"
    assert [(promise.kept, promise.why) for promise in fast.promises] == [(None, "the run failed")]
    assert not runner.ComparisonOutcome([default, fast], []).is_sound


def test_staged_training_has_a_row_for_the_whole_and_one_per_stage(rows, tmp_path):
    folder_of_all = tmp_path / "staged"
    small = {"device": None, "host": 500, "host_growth": 100}
    folder(folder_of_all / "1-encoder", 0.25, peak=small)
    folder(folder_of_all / "2-text", 0.5, peak={**small, "host_growth": 140})
    stages = [{"name": "encoder", "folder": "1-encoder"}, {"name": "text", "folder": "2-text"}]
    (folder_of_all / "stages.json").write_text(json.dumps({"stages": stages}))
    memory = {"peak_memory": {"at_most": 0.5}}
    limit = {"host_peak_bytes": {"at_most": 499}}
    staged = candidate("staged", promises=memory, encoder={**memory, **limit}, text=memory)
    assert staged.promised()[0] == memory

    default, all_of_it, encoder, text = rows(
        (candidate("default"), {"1": folder(tmp_path / "a", 1.0)}), (staged, {"1": folder_of_all})
    )
    assert [row.stage for row in (all_of_it, encoder, text)] == [None, "encoder", "text"]
    assert default.peak_memory_bytes == 300
    [whole] = all_of_it.promises
    assert (whole.measured, whole.kept) == (140 / 300, True)
    [limited] = encoder.promises
    assert (limited.name, limited.kept) == ("host_peak_bytes", False)
    assert text.promises == ()
    assert (encoder.step_s, text.step_s) == (0.25, 0.5)
