"""The command `evaluate` gives the numbers of the run, and changes nothing but its own file."""

import json
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save

from gearshift.launcher.run_folder import run_folder
from tests.launcher.saved_runs import (
    change_state,
    change_tensor,
    checkpoint,
    contents,
    flip_a_bit,
    replace_file,
    train,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with an EMA that evaluated its test split at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = {"eval.test": True, "save.keep_best": 1}
    yield train(tmp_path_factory.mktemp("trained"), **settings)
    torch.set_num_threads(before)


@pytest.fixture
def evaluate(said, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return partial(said, "evaluate")


def logged(run, split):
    """The metrics of the last evaluation of a split in metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return next(line["metrics"] for line in reversed(lines) if line.get("split") == split)


def test_the_numbers_are_those_of_the_run_and_only_its_own_file_and_the_report_change(
    run, evaluate
):
    before = contents(run)
    out = evaluate(run)
    result = json.loads((run / "result.json").read_text())["test"]
    assert out.startswith(f"step {result['step']} of {run}, EMA, local on 1 process\ntest  ")
    assert f"val_loss {result['metrics']['val_loss']:.4f}" in out
    after = contents(run)
    [line] = [json.loads(line) for line in after.pop(run_folder.EVALUATIONS).splitlines()]
    reports = [files.pop(run_folder.REPORT).decode() for files in (before, after)]
    assert after == before
    shown = f"<td>step {result['step']}, EMA</td>"
    assert [text.count(shown) for text in reports] == [0, 1]
    assert (line["split"], line["step"], line["weights"]) == ("test", result["step"], "ema")
    assert line["metrics"] == result["metrics"] == logged(run, "test")


@pytest.mark.slow
def test_two_processes_give_the_same_numbers_to_rounding(run, evaluate):
    ranks = ("--engine", "ddp", "--nproc", "2")
    found = evaluate(run, "--split", "val", "--checkpoint", "6", *ranks, "--json")
    assert (found["world_size"], found["step"], found["weights"]) == (2, 6, "ema")
    assert found["metrics"] == pytest.approx(logged(run, "val"), rel=1e-5)


def test_a_wrong_argument_or_a_damaged_checkpoint_is_named_and_nothing_noted(
    run, monkeypatch, evaluate
):
    monkeypatch.chdir(run.parent)
    for args, first, allowed in (
        (["copy", "--checkpoint", "5"], "no checkpoint '5' in copy", "best, last, 2, 4, 6"),
        (["copy", "--split", "tset"], "'tset'", "train, val, test"),
        (["cpoy"], "run folder 'cpoy' does not exist", "did you mean  copy"),
    ):
        err = evaluate(*args, code=2)
        assert first in err and allowed in err
    path = flip_a_bit(checkpoint(run, 6))
    assert str(path) in evaluate(run, "--checkpoint", "6", code=1)
    assert not (run / run_folder.EVALUATIONS).exists()


@pytest.mark.slow
def test_the_weights_of_the_checkpoint_are_measured(run, evaluate):
    change_tensor(checkpoint(run, 6), "ema|model.norm.weight|0", lambda tensor: tensor.mul_(2))
    found = evaluate(run, "--split", "val", "--checkpoint", "6", "--json")
    assert found["metrics"] != logged(run, "val")
    assert found["preview"] and evaluate(run, "--json")["preview"] is None  # it is of split val


@pytest.mark.parametrize(
    "settings", [None, 3, {}, {"model.family": 3}, {"model": 1, "model.size": "tiny"}]
)
def test_a_checkpoint_without_the_settings_of_a_run_is_an_error(run, said, settings):
    change_state(checkpoint(run, 6), lambda state: state["facts"].update(settings=settings))
    for command, options in COMMANDS.items():
        error = said(command, run, *options, "--checkpoint", "6", code=1)
        assert "state.json lacks the settings of a run" in error


COMMANDS = {"evaluate": [], "predict": ["--input", "First"], "export": ["--format", "safetensors"]}
WEIGHT = "model.norm.weight"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_weight_that_is_nan_is_named_with_its_file(run, said, command):
    """By all that use its weights; of those the EMA counts."""
    newest = checkpoint(run, 6)
    for kind in ("exp_avg", "ema"):
        change_tensor(newest, f"{kind}|{WEIGHT}|0", lambda tensor: tensor[-1:].fill_(torch.nan))
    before = contents(run)
    options = [*COMMANDS[command], "--checkpoint", "6"]
    error = said(command, run, *options, code=1)
    assert str(newest / "rank-00000.safetensors") in error and f"'{WEIGHT}'" in error
    assert contents(run) == before


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_weight_of_the_file_for_other_programs_that_is_not_finite_is_named(
    trained, tmp_path, said, command, value
):
    run = shutil.copytree(trained, tmp_path / "copy", symlinks=True)
    best = run / "best"
    tensors = load_file(best / "model.safetensors")
    tensors[WEIGHT][-1] = value
    replace_file(best / "model.safetensors", save(tensors))
    before = contents(run)
    error = said(command, run, *COMMANDS[command], code=1)
    assert str(best / "model.safetensors") in error and f"'{WEIGHT}'" in error
    assert contents(run) == before


@pytest.mark.slow
def test_metrics_that_are_not_finite_are_shown_and_recorded_and_the_exit_code_is_1(run, evaluate):
    """The weights are finite; what they compute is not."""
    change_tensor(checkpoint(run, 6), f"ema|{WEIGHT}|0", lambda tensor: tensor.fill_(3e38))
    error = evaluate(run, "--checkpoint", "6", code=1)
    assert error == "error: val_loss nan in the evaluation of test\n"
    [line] = [json.loads(line) for line in (run / run_folder.EVALUATIONS).read_text().splitlines()]
    assert line["metrics"]["val_loss"] == "NaN"
    assert "val_loss nan" in (run / run_folder.REPORT).read_text()
