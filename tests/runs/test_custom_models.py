"""A custom task trains under every engine, and is resumed, verified and exported like any other."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file

import gearshift
from gearshift.launcher.__main__ import main
from gearshift.launcher.base.diagnostics import SettingsError
from tests.launcher.custom_tasks import BODY, EXAMPLES, HEAD, LINE, write
from tests.runs.conftest import Program, losses


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the example in it."""
    shutil.copy(EXAMPLES / "images.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL = ("--max-steps", "6", "--set", "data.samples=128", "--set", "log.every=1")


@pytest.fixture
def saved(here, program):
    """A run that saved after its third and its last step."""
    saving = ("--set", "save.every=3", "--set", "save.keep_last=2")
    done = program("--model", "images:Images", *SMALL, *saving, "--out", "run")
    assert done.returncode == 0, done.stderr
    return here / "run"


@pytest.fixture
def elsewhere(tmp_path_factory):
    """The program in a folder without a task."""
    return Program(tmp_path_factory.mktemp("elsewhere"))


@pytest.mark.slow
def test_a_custom_task_is_resumed_verified_and_exported_from_another_folder(saved, elsewhere):
    unbroken = losses(saved)
    done = elsewhere("resume", str(saved / "checkpoints" / "step-00000003"))
    assert done.returncode == 0, done.stderr
    assert losses(saved) == unbroken

    done = elsewhere("verify", str(saved), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["identical"]

    done = elsewhere("export", str(saved), "--format", "safetensors", "--out", "exported")
    assert done.returncode == 0, done.stderr
    config = json.loads((elsewhere.folder / "exported" / "config.json").read_text())
    assert (config["family"], config["size"]) == ("images:Images", "small")
    tensors = load_file(elsewhere.folder / "exported" / "model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == config["parameters"]

    done = elsewhere("export", str(saved), "--format", "hf")
    assert done.returncode == 2
    assert "--format safetensors" in done.stderr


def test_the_python_api_names_a_custom_task_like_the_command_line(here, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = write(here, HEAD + LINE + BODY)
    run = gearshift.train(model=f"{name}:Line", settings={"model.width": 3}, console=False)
    assert (run.status, run.steps) == ("completed", 4)
    assert set(run.metrics("eval")[-1]["metrics"]) == {"val_loss"}
    settings = run.folder / "settings.yaml"
    again = gearshift.train(config=settings, console=False, out=here / "again")
    assert losses(again.folder) == losses(run.folder)
    with pytest.raises(SettingsError, match=r"unknown setting 'model\.depth'"):
        gearshift.train(model=f"{name}:Line", settings={"model.depth": 3})


def test_a_mean_instead_of_a_sum_ends_the_run_before_its_first_step(here, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = write(here, HEAD + LINE + BODY.replace("square().sum()", "square().mean()"))
    assert main(["--model", f"{name}:Line", "--out", "run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the loss of Line does not grow with the batch: twice the sampl")
    assert f"{name}.py:18\n" in error
    assert not (here / "run").exists()


LARGE = """\
        model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        model.frozen = nn.Parameter(torch.zeros(9_000_000), requires_grad=False)
        return model
"""
"""A model of which each of two ranks writes more than one block."""


@pytest.mark.slow
def test_a_checkpoint_that_is_found_damaged_as_it_is_loaded_is_renamed_and_the_one_before_is_used(
    here, program
):
    small = "        return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))\n"
    name = write(here, HEAD + LINE + BODY.replace(small, LARGE))
    sets = (
        "train.max_steps=6",
        "stop.after=4",
        "save.every=2",
        "save.keep_last=2",
        "save.keep_best=0",
    )
    words = [word for text in sets for word in ("--set", text)]
    done = program(
        "--model", f"{name}:Line", "--engine", "ddp", "--nproc", "2", *words, "--out", "run"
    )
    assert done.returncode == 0, done.stderr
    damaged = here / "run/checkpoints/step-00000004"
    file = max(damaged.glob("rank-*"), key=lambda path: path.stat().st_size)
    with file.open("r+b") as stream:
        stream.seek(-200, 2)
        stream.write(b"\xff\xff\xff\xff")
    done = program("resume", "run", "--set", "stop.after=6")
    assert done.returncode == 0, done.stderr
    assert f"{file.name} is damaged" in done.stderr and "Traceback" not in done.stderr
    resumed = [
        e["step"]
        for e in map(json.loads, (here / "run/events.jsonl").open())
        if e["kind"] == "resumed"
    ]
    assert resumed == [2]
    assert (here / "run/checkpoints/damaged-step-00000004").is_dir()


PENALIZED = """\
    def measure(self, model, batch):
        x = batch["input"].clone().requires_grad_()
        with torch.enable_grad():
            out = model(x)
            (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return {"loss": (out - batch["target"]).square().sum() + slope.square().sum()}
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fsdp", "zero2"])
def test_an_error_of_the_engine_in_the_first_pass_is_a_sentence_and_writes_nothing(
    here, program, engine
):
    body = BODY[: BODY.index("    def measure")] + PENALIZED
    name = write(here, HEAD + LINE + body)
    done = program("--model", f"{name}:Line", "--engine", engine, "--nproc", "2", "--out", "run")
    assert done.returncode == 2, done.stderr
    assert "local with one process, ddp" in done.stderr and "Traceback" not in done.stderr
    assert not (here / "run").exists()
