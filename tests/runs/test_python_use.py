"""`launcher.train`: the same run from Python, with a result instead of an exit code."""

import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import launcher
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write
from tests.runs.conftest import REQUESTS
from training.checkpoint.reader import open_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"data.path": "mine.jsonl", "train.max_steps": 3, "train.preview": False, "log.every": 1}
TINY |= {"train.global_batch": 4, "train.micro_batch": 2}
SEEN = """\
    def setup(self):
        super().setup()
        self.seen = len(self.data("train"))

"""
"""The network is only built after the data was read."""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with a few requests as training data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text(REQUESTS)
    return tmp_path


def test_training_from_python_returns_a_result(here, capsys):
    choice = {"model": "language:tiny", "mode": "lite", "engine": "local"}
    run = launcher.train(**choice, settings=TINY, console=False)
    assert (run.status, run.steps) == ("completed", 3)
    assert run.best["metric"] == "val_loss"
    assert [line["step"] for line in run.metrics("train")] == [1, 2, 3]
    assert run.metrics("eval")[-1]["metrics"]["val_loss"] == run.best["value"]
    assert run.folder.parent.name == "runs"
    assert (run.folder / "result.json").exists()
    assert capsys.readouterr().out == ""
    with pytest.raises(launcher.SettingsError, match=r"allowed .* rank 0"):
        replace(run, folder=None).model()


def test_the_result_gives_the_trained_model(here):
    settings = {**TINY, "train.ema": 0.5, "save.every": 1, "save.keep_last": 3}
    run = launcher.train(model="language:tiny", settings=settings, console=False)
    before = torch.get_rng_state()
    model = run.model("last")
    assert torch.equal(torch.get_rng_state(), before)
    found = open_checkpoint(run.folder / "last")
    assert not model.training
    assert {name for name, _ in model.named_parameters()} == set(found.names())
    for name, weight in model.named_parameters():
        assert torch.equal(weight, found.tensor("ema", name))
    assert not torch.equal(run.model(1).lm_head.weight, model.lm_head.weight)
    best = run.model().lm_head.weight
    assert torch.equal(best, run.model(run.best["step"]).lm_head.weight)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_disk_without_room_for_a_checkpoint_is_found_before_training(here, monkeypatch, resumed):
    if resumed:
        launcher.train(model="language:tiny", settings=TINY, console=False, out="mine")
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    longer = {"settings": {"train.max_steps": 6}, "resume": "mine", "reset": ["schedule"]}
    start = longer if resumed else {"model": "language:tiny", "settings": TINY, "out": "mine"}
    with pytest.raises(launcher.SettingsError) as error:
        launcher.train(**start, console=False)
    lines = str(error.value).splitlines()
    room = r"error: there is no room for a checkpoint: it needs [0-9.]+ MiB, and "
    assert re.fullmatch(room + r"(/.+/)?mine\S* has 1.0 MiB free", lines[0])
    after = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    changed = [path for path in before | after if before.get(path) != after.get(path)]
    assert changed in ([], [here / "mine" / ".lock"])


def test_the_model_of_a_custom_task_is_built_with_its_data(here):
    body = BODY.replace("nn.Linear(2, 4)", "nn.Linear(2, self.seen // 2)")
    task = f"{write(here, HEAD + LINE + SEEN + body)}:Line"
    run = launcher.train(model=task, settings={"train.max_steps": 2}, console=False)
    found = open_checkpoint(run.folder / "last")
    assert torch.equal(run.model()[0].weight, found.tensor("weight", "0.weight"))
    nothing = {"train.max_steps": 2, "save.last": False, "save.keep_best": 0}
    run = launcher.train(model=task, settings=nothing, console=False)
    with pytest.raises(launcher.SettingsError, match="has no checkpoint"):
        run.model()


LOOP = """
import launcher

for out in ("first", "second"):
    launcher.train(model="language:tiny", settings={"data.path": "mine.jsonl"}, out=out)
"""


def test_ctrl_c_saves_the_run_and_ends_a_loop_of_runs(here):
    (here / "loop.py").write_text(LOOP)
    loop = [sys.executable, "-u", "loop.py"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(loop, **pipes) as running:
        for line in running.stdout:
            if line.startswith("step"):
                running.send_signal(signal.SIGINT)
                break
        rest = running.stdout.read()
    assert rest.rstrip().endswith("KeyboardInterrupt")
    assert (here / "first" / "last").exists()
    assert not (here / "second").exists()
