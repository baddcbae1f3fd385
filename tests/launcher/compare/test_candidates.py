"""The compared candidates, and what is refused before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import SettingsError
from launcher.cli.parser import read
from launcher.compare.candidates import decide
from launcher.compare.runner import arguments

TINY = ["compare", "--model", "language:tiny"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def decided(*args):
    return decide(read([*TINY, *args]))


def refused(*args):
    with pytest.raises(SettingsError) as caught:
        decided(*args)
    return str(caught.value)


def test_mode_default_is_always_compared_and_comes_first():
    found = decided("--modes", "fast, lite,fast", "--steps", "3")
    assert [candidate.mode for candidate in found.candidates] == ["default", "fast", "lite"]


def test_every_mode_runs_under_every_engine():
    found = decided("--modes", "fast", "--engines", "local,ddp", "--nproc", "1")
    pairs = [(candidate.mode, candidate.engine) for candidate in found.candidates]
    assert pairs == [
        *(("default", "local"), ("default", "ddp")),
        *(("fast", "local"), ("fast", "ddp")),
    ]


@pytest.mark.parametrize(
    ("args", "setting"),
    [
        (["--steps", "5"], "stop.after=5"),
        (["--epochs", "0.5"], "stop.after=0.5 epochs"),
        (["--until", "val_loss=1.9"], "stop.at=val_loss = 1.9"),
    ],
)
def test_limits_leave_the_training_plan_as_it_is(args, setting):
    found = decided("--modes", "fast", *args)
    assert all(setting in candidate.args.sets for candidate in found.candidates)
    steps = [candidate.resolved.settings.train.max_steps for candidate in found.candidates]
    assert steps == [60, 15]


def test_every_step_is_logged_unless_the_user_sets_log_every():
    (default, _) = decided("--modes", "fast").candidates
    assert "log.every=1" in default.args.sets
    (default, _) = decided("--modes", "fast", "--set", "log.every=7").candidates
    assert "log.every=1" not in default.args.sets
    assert default.args.sets[0] == "log.every=7"


def test_a_run_gets_the_arguments_of_the_user_and_of_the_comparison():
    args = [
        *("--modes", "fast", "--engines", "ddp", "--nproc", "1", "--deterministic"),
        *("--lr", "1e-3", "--set", "train.seed=3", "--steps", "2"),
    ]
    _, fast = decided(*args).candidates
    cli_args = arguments(fast.args)
    assert cli_args == [
        *("--model=language:tiny", "--mode=fast", "--engine=ddp", "--lr=1e-3", "--nproc=1"),
        *("--deterministic", "--set=train.seed=3", "--set=stop.after=2", "--set=log.every=1"),
        "--set=train.preview=false",
    ]
    again = read(["run", *cli_args])
    assert not again.diagnostics
    assert again.args.sets == list(fast.args.sets)


def test_all_errors_are_printed_together_and_nothing_is_written(capsys, tmp_path):
    args = ["--modes", "fsat", "--steps", "none", "--repeat", "0", "--set", "train.sede=1"]
    assert main([*TINY, *args]) == 2
    content = capsys.readouterr().err
    assert "--steps 'none' is invalid" in content
    assert "--repeat '0' is invalid" in content
    assert "unknown mode 'fsat'" in content
    assert "did you mean  fast" in content
    assert content.count("unknown setting 'train.sede'") == 1  # of both modes, once
    assert list(tmp_path.iterdir()) == []


def test_limits_exclude_each_other():
    content = refused("--modes", "fast", "--steps", "3", "--until", "val_loss=2")
    assert "--steps and --until exclude each other" in content


def test_modes_or_engines_are_required():
    assert "compare needs --modes or --engines" in refused()


def test_an_invalid_until_is_refused():
    content = refused("--modes", "fast", "--until", "soon")
    assert "--until 'soon' is invalid" in content
    assert "allowed       a metric and a number" in content


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert "full is not empty" in refused("--modes", "fast", "--out", "full")


def test_the_default_folder_is_below_runs():
    folder = decided("--modes", "fast").folder
    assert folder.parent == Path("runs")
    assert folder.name.startswith("compare-language-tiny-")


def test_under_torchrun_it_is_refused(monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert "compare starts its own processes" in refused("--modes", "fast")


def test_errors_are_printed_as_json(capsys):
    assert main([*TINY, "--modes", "fast", "--steps", "x", "--json"]) == 2
    (diagnostic,) = json.loads(capsys.readouterr().out)["diagnostics"]
    assert diagnostic["message"] == "--steps 'x' is invalid"


def test_a_dry_run_lists_the_runs_and_writes_nothing(capsys, tmp_path):
    args = [*TINY, "--modes", "fast", "--repeat", "3", "--steps", "4", "--out", "it", "--dry-run"]
    assert main(args) == 0
    head, *runs = capsys.readouterr().out.splitlines()
    assert head == "6 runs in turns, into it:"
    assert runs[1].startswith("python -m launcher --model=language:tiny --mode=fast --set=stop")
    assert main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["repeats"], [run["mode"] for run in found["runs"]]) == (3, ["default", "fast"])
    assert list(tmp_path.iterdir()) == []
