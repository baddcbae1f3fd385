"""--tune: engines are measured once, and the fastest is used from then on."""

from __future__ import annotations

import json

import pytest

from launcher.__main__ import main
from launcher.compare import tune
from launcher.compare.runner import Ended, Interrupted
from launcher.config.provenance import CliArgs
from launcher.plan import auto
from launcher.plan.target import Described
from launcher.run import job_spec
from tests.launcher.given import LAPTOP, set_torchrun
from tests.launcher.plan.test_auto import MIB, candidate

TWO = {"engine.nproc": ("--nproc", "2"), "stop.after": ("--max-steps", "60")}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def measured(monkeypatch):
    """The engines that are measured, each with the arguments of its run."""
    speeds = {"ddp": 100.0, "oss": 140.0, "zero1": None}
    runs = {}

    def run(args, folder, *, plan):
        assert plan == job_spec.NO_PLAN
        runs[args.engine] = args
        speed = speeds[args.engine]
        folder.mkdir()
        (folder / "result.json").write_text(
            json.dumps({"status": "stopped", "samples_per_s": speed})
        )
        return Ended(folder, "out of memory" if speed is None else None, None)

    costs = {"ddp": 1.0, "oss": 1.1, "zero1": 1.2, "zero3": 4.0}
    found = [candidate(engine, cost) for engine, cost in costs.items()]
    found.append(candidate("fsdp", 0.1, fits=False))
    monkeypatch.setattr(auto, "candidates", lambda *_, **__: found)
    monkeypatch.setattr(tune.runner, "run", run)
    return runs


def tuned(engine):
    args = CliArgs(model="language:tiny", engine=engine, options=TWO)
    return auto.decide_engine(args, None, Described(LAPTOP)).resolved


def test_the_fastest_is_used_in_later_runs(measured):
    lines = []
    args = CliArgs(model="language:tiny", options=TWO, tune="5")
    tune.tune(args, None, LAPTOP, lines.append)
    assert list(measured) == ["ddp", "oss", "zero1"]
    assert lines == [
        "measured 1 of 3: ddp: 100 samples/s",
        "measured 2 of 3: oss: 140 samples/s",
        "measured 3 of 3: zero1: failed",
    ]
    args = measured["oss"]
    assert "stop.after=5" in args.sets
    assert "stop.after" not in args.options and "track=[]" in args.sets
    args = CliArgs(model="language:tiny", options=TWO)
    run = auto.decide_engine(args, None, Described(LAPTOP)).resolved
    assert run.settings.engine.name == "oss" and run.chosen is not None
    assert run.chosen.reason == "140 samples/s, the fastest of 2, measured over 4 steps"
    assert (
        run.chosen.others[1]
        == f"ddp {3 * MIB / MIB:.1f} MiB of 4.0 MiB: measured 1.40 times the time"
    )


def test_a_run_that_nothing_fits_is_left_to_the_run(monkeypatch):
    monkeypatch.setattr(auto, "candidates", lambda *_, **__: [candidate("ddp", 1.0, fits=False)])
    monkeypatch.setattr(tune.runner, "run", pytest.fail)
    tune.tune(CliArgs(model="language:tiny", options=TWO, tune="2"), None, LAPTOP, pytest.fail)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tune", "1"], "--tune 1 is not a count of steps"),
        (["--tune", "x"], "--tune x is not a count of steps"),
        (["--tune", "5", "--mode", "staged"], "has one per stage"),
        (
            ["--tune", "5", "--engine", "ddp"],
            "--tune chooses the engine, and --engine ddp names it",
        ),
    ],
)
def test_what_cannot_be_measured_is_an_error(words, told, capsys, tmp_path):
    assert main(["--model", "language:tiny", "--nproc", "2", *words]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_dry_run_measures_nothing(monkeypatch, capsys):
    monkeypatch.setattr(tune.runner, "run", pytest.fail)
    assert main(["--model", "language:tiny", "--nproc", "2", "--tune", "5", "--dry-run"]) == 0
    assert "--tune 5: nothing is measured in a dry run" in capsys.readouterr().err


def test_ranks_of_another_launcher_are_refused(monkeypatch, capsys):
    set_torchrun(monkeypatch, 0, 1)
    assert main(["--model", "language:tiny", "--tune", "5"]) == 2
    assert (
        "--tune starts its own processes, but torchrun started this one" in capsys.readouterr().err
    )


def test_an_interruption_ends_the_program(monkeypatch):
    def run(args, folder, *, plan):
        assert plan == job_spec.NO_PLAN
        raise Interrupted(130)

    monkeypatch.setattr(auto, "candidates", lambda *_, **__: [candidate("ddp", 1.0)])
    monkeypatch.setattr(tune.runner, "run", run)
    assert main(["--model", "language:tiny", "--nproc", "2", "--tune", "5"]) == 130


@pytest.mark.slow
def test_real_engines_are_measured_and_the_run_follows(capfd, tmp_path):
    words = ["--model", "language:tiny", "--nproc", "2", "--max-steps", "4", "--tune", "3"]
    assert main([*words, "--out", "run"]) == 0
    out, err = capfd.readouterr()
    assert err.count("samples/s\n") == 3
    assert "engine auto: " in out and "the fastest of 3, measured over 2 steps" in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"engine auto: {result['engine']}: " in out
