"""Real comparisons: small runs in processes of their own."""

import json
import signal

import pytest

from tests.runs.conftest import REQUESTS, Program
from tests.waiting import until

pytestmark = pytest.mark.slow
BROKEN = "promise={step_time: {at_most: 0.0001}, parameters: {at_least: 1, at_most: 1}, "
BROKEN += "device_peak: {at_most: 9}, host_peak: {at_most: 1, sizes: [full]}}"


COMPARE = ("compare", "--model", "language:tiny", "--data", "mine.jsonl", "--set", "eval.every=2")


def compare(workdir, *args):
    """Exit code, stdout and stderr of a comparison."""
    done = Program(workdir)(*COMPARE, *args)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    (folder / "mine.jsonl").write_text(REQUESTS)
    return folder


def test_a_broken_promise_exits_1_and_the_json_holds_everything(workdir):
    """Mode default and fast for six steps, with a promise that cannot be kept."""
    args = ["--modes", "fast", "--steps", "6", "--set", "train.global_batch=4"]
    code, out, err = compare(workdir, *args, "--set", BROKEN, "--out", "it", "--json")
    found = json.loads(out)
    assert code == 1, err
    assert json.loads((workdir / "it" / "compare.json").read_text()) == found
    default, fast = found["rows"]
    assert (default["mode"], fast["mode"]) == ("default", "fast")
    assert (default["error"], fast["error"]) == (None, None)
    kept = {promise["name"]: promise["kept"] for promise in fast["promises"]}
    assert kept == {**kept, "step_time": False, "parameters": True, "device_peak": True}
    assert list(fast["unpromised"]) == ["host_peak"] and default["promises"] == []
    for row in found["rows"]:
        assert row["steps"] == 6
        assert row["extrapolated"]["total"] is (row["total_steps"] > 6)
        assert row["total_s"] > row["total_steps"] * row["step_s"] / 2
        assert row["host_peak_bytes"] > row["peak_memory_bytes"] > 0
        assert (row["metric"]["metric"], len(row["curve"])) == ("val_loss", 3)
    runs = sorted((workdir / "it" / "runs").iterdir())
    assert [path.name for path in runs] == ["default-local-1", "fast-local-1"]
    for run in runs:
        left = {path.name for path in run.iterdir()}
        assert {"settings.yaml", "metrics.jsonl", "result.json"} <= left
        assert not {"checkpoints", "best", "last"} & left
    assert (workdir / "it" / "compare.html").read_text().startswith("<!doctype html>")


def test_a_failed_run_is_reported_and_the_others_continue(workdir):
    # Only mode lite takes a share of the data, which is then too small for a step.
    (workdir / "small.jsonl").write_text("".join(REQUESTS.splitlines(keepends=True)[:12]))
    args = ["--modes", "lite", "--steps", "2", "--set", "train.global_batch=8", "--out", "failing"]
    compared = ["small.jsonl" if word == "mine.jsonl" else word for word in COMPARE]
    done = Program(workdir)(*compared, *args)
    code = done.returncode
    out = done.stdout
    assert code == 1, done.stderr
    (line,) = [line for line in out.splitlines() if line.startswith("lite local failed: ")]
    assert "train.global_batch 8" in line
    default, lite = json.loads((workdir / "failing" / "compare.json").read_text())["rows"]
    assert default["error"] is None and default["step_s"] > 0
    assert lite["step_s"] is None
    assert all(promise["kept"] is None for promise in lite["promises"])


def interrupted(workdir, folder, awaited, *args):
    """Exit code, stdout and stderr of a comparison that gets Ctrl-C once `awaited` has content."""
    more = ("--modes", "fast", "--steps", "20", "--out", str(folder))
    comparing = Program(workdir).start(*COMPARE, *args, *more)
    until(lambda: awaited.exists() and awaited.stat().st_size, comparing)
    comparing.send_signal(signal.SIGINT)
    out, err = comparing.communicate()
    return comparing.returncode, out, err


STUDY = ("--set", "train.global_batch=4", "--folds", "2")


def test_a_study_pairs_its_runs_and_keeps_those_before_an_interruption(workdir):
    args = ("--modes", "fast", "--steps", "4", "--json")
    code, out, err = compare(workdir, *STUDY, *args)
    content = json.loads(out)
    assert "run 4 of 4: default local fold2" in err
    assert (content["folds"], content["seeds"]) == (2, None)
    default, fast = (row["study"] for row in content["rows"])
    for figures in (default, fast):
        assert (figures["finished"], figures["failed"], figures["metric"]) == (2, {}, "val_loss")
    assert default["groups"] == fast["groups"]
    assert len(set(default["groups"].values())) == 2
    pairs = [figures["values"] for figures in (fast, default)]
    gaps = [pairs[0][name] - pairs[1][name] for name in ("fold1", "fold2")]
    assert fast["difference"]["mean"] == pytest.approx(sum(gaps) / 2)
    folder = workdir / "study"
    started = folder / "runs" / "fast-local-fold1" / "metrics.jsonl"
    code, out, err = interrupted(workdir, folder, started, *STUDY)
    assert code == 130, err
    assert "† default local: val_loss of 1 of 2 runs" in out and "failed" not in out
    assert "note: interrupted" in out and (folder / "compare.html").exists()
    assert [path.name for path in (folder / "runs").iterdir()] == ["default-local-fold1"]
    assert compare(workdir, *STUDY, "--modes", "fast", "--out", "study")[0] == 2  # not empty
