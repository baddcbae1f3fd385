"""Stages trained in processes of their own: weights, results, signals, resuming."""

import contextlib
import io
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import gearshift
from gearshift.launcher.__main__ import main
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.stages import execute
from gearshift.launcher.stages import pipeline as chain_of
from gearshift.models.common.initial_weights import InitialWeights
from gearshift.training.checkpoint.reader import CheckpointWeights
from tests.launcher.stages.halves import halves
from tests.runs.conftest import Program


def tensors(folder):
    return load_file(folder / "best" / "model.safetensors")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def name(home):
    return halves(home)


@pytest.fixture(scope="module")
def pipeline(home, name):
    """Both stages in one command."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.chdir(home)
        assert main(["--model", name, "--mode", "staged", "--out", "x"]) == 0
    return home / "x", shown.getvalue()


@pytest.mark.slow
def test_a_pipeline_trains_like_stages_started_separately(home, name, pipeline, monkeypatch):
    monkeypatch.chdir(home)
    first = {"stages": ["lower"]}
    gearshift.train(model=name, mode="staged", settings=first, out="a", console=False)
    second = {"stages": ["upper"], "model.start": str(home / "a")}
    gearshift.train(model=name, mode="staged", settings=second, out="b", console=False)
    for summarize, alone in (("1-lower", "a"), ("2-upper", "b")):
        ours, theirs = tensors(pipeline[0] / summarize), tensors(home / alone)
        assert list(ours) == list(theirs)
        assert all(ours[key].equal(theirs[key]) for key in ours)


@pytest.mark.slow
def test_the_result_lists_its_stages(pipeline):
    folder, shown = pipeline
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["mode"], result["parameters"]) == ("completed", "staged", 22)
    assert "stage 1 of 2: lower, train the lower half" in shown.splitlines()
    assert shown.splitlines()[-1] == "run folder x"


@pytest.mark.slow
def test_a_signal_between_two_stages_ends_it_before_the_next(home, pipeline, monkeypatch):
    monkeypatch.chdir(home)
    shutil.copytree(pipeline[0], "between", symlinks=True)
    Path("between/2-upper/result.json").unlink()
    ready = chain_of.prepare(CliArgs(resume="between"), None, [])
    content = []

    def announce(title):
        if title.startswith("stage 2 of 2: upper"):
            os.kill(os.getpid(), signal.SIGTERM)

    ended = execute.train_stages(ready, False, lambda report: content.append(report.text), announce)
    assert (ended.exit_code, content) == (75, ["stopped between two stages"])
    assert [stage["status"] for stage in ended.result["stages"]] == ["completed", "waiting"]
    assert json.loads((home / "between" / "result.json").read_text())["status"] == "stopped"


def begin(home, name, out):
    """A long pipeline in a process group of its own, after its first checkpoint."""
    args = ("--model", name, "--mode", "staged", "--out", out, "--epochs", "20")
    slow = ("--set", "model.slow_s=0.2", "--set", "save.every=2", "--set", "eval.every=null")
    process = Program(home).start(*args, *slow, stderr=None, start_new_session=True)
    for resume_line in process.stdout:
        if resume_line.startswith("saved"):
            return process
    raise AssertionError(f"it ended: {process.wait()}")


@pytest.mark.slow
def test_a_signal_in_the_first_stage_saves_it_and_starts_no_other(home, name):
    process = begin(home, name, "stopped")
    process.send_signal(signal.SIGTERM)
    shown, _ = process.communicate()
    assert process.returncode == 75
    assert shown.splitlines()[-1] == "run folder stopped; resume: python -m launcher resume stopped"
    result = json.loads((home / "stopped" / "result.json").read_text())
    assert [stage["status"] for stage in result["stages"]] == ["stopped", "waiting"]
    assert not (home / "stopped" / "2-upper" / "metrics.jsonl").exists()
    # Stopped before its first evaluation, it can feed the next stage nevertheless.
    assert not list((home / "stopped").rglob("model.safetensors"))
    upper = ("--model", name, "--mode", "staged", "--stage", "upper", "--max-steps", "1")
    fed = Program(home)(*upper, "--from", "stopped", "--out", "fed")
    assert fed.returncode == 0, fed.stderr
    found = tensors(home / "fed")["lower.weight"]
    assert found.equal(initial(home / "stopped" / "1-lower")["lower.weight"])


@pytest.mark.slow
def test_killed_stages_resume_under_another_engine(home, name):
    process = begin(home, name, "killed")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    program = Program(home)
    args = ("--engine", "ddp", "--nproc", "2")
    done = program("resume", "killed", *args)
    assert done.returncode == 0, done.stderr
    assert "resuming killed: lower, upper" in done.stdout
    lines = (home / "killed" / "1-lower" / "metrics.jsonl").read_text().splitlines()
    steps = [stage["step"] for stage in map(json.loads, lines) if stage["kind"] == "train"]
    assert steps == list(range(1, 41))
    result = json.loads((home / "killed" / "result.json").read_text())
    assert (result["status"], result["engine"], result["world_size"]) == ("completed", "ddp", 2)
    verified = program("verify", "killed/2-upper")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def initial(folder):
    """The weights that a run gives another one."""
    stored = InitialWeights(folder, "model.start", CheckpointWeights)
    tensors = {name: torch.empty(tensor.shape) for name, tensor in stored.tensors.items()}
    for name, tensor in tensors.items():
        stored.read_into(name, tensor)
    return tensors


def test_a_checkpoint_without_a_weights_file_feeds_the_next_stage(home, name, said, monkeypatch):
    monkeypatch.chdir(home)
    short = ("--model", name, "--mode", "staged", "--max-steps", "2", "--stage")
    said(*short, "lower", "--out", "plain", "--set", "save.keep_best=0")
    assert not list((home / "plain").rglob("model.safetensors"))
    said(*short, "upper", "--from", "plain", "--out", "upper")
    first, last = initial(home / "plain"), initial(home / "upper")
    assert first["lower.weight"].equal(last["lower.weight"])
    said("export", "plain", "--format", "safetensors", "--out", "exported")
    exported = load_file(home / "exported" / "model.safetensors")
    assert exported.keys() == first.keys()
    assert all(exported[key].equal(first[key]) for key in exported)
