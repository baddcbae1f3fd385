"""The command `evaluate` gives the numbers of the run, and changes nothing but its own file."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import launcher
from launcher.__main__ import main
from launcher.base.diagnostics import SettingsError
from launcher.run_folder import run_folder
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write
from tests.launcher.saved_runs import change_tensor, checkpoint, contents, train

OTHER_GOAL = """\
    def setup(self):
        super().setup()
        if self.data_settings.path.endswith("bare"):
            self.goal = Goal("val_reconstruction", "min")
"""
DATA = "    class Data(BaseModel):\n        path: str = 'labeled'\n\n"
NO_TEST = """\
    def setup(self):
        self._splits = {name: _FixedSamples(self.samples(name)) for name in ("train", "val")}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with an EMA that evaluated its test split at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = {"eval.test": True, "save.keep_best": 1}
    yield train(tmp_path_factory.mktemp("trained"), **settings)
    torch.set_num_threads(before)


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy that may be changed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Path(shutil.copytree(trained, tmp_path / "copy", symlinks=True))


def logged(run, split):
    """The metrics of the last evaluation of a split in metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return next(line["metrics"] for line in reversed(lines) if line.get("split") == split)


def test_the_numbers_are_those_of_the_run_and_only_its_own_file_and_the_report_change(run, capfd):
    before = contents(run)
    assert main(["evaluate", str(run)]) == 0
    result = json.loads((run / "result.json").read_text())["test"]
    out = capfd.readouterr().out
    assert out.startswith(f"step {result['step']} of {run}, EMA, local on 1 process\ntest  ")
    assert f"val_loss {result['metrics']['val_loss']:.4f}" in out
    after = contents(run)
    [line] = [json.loads(line) for line in after.pop(run_folder.EVALUATIONS).splitlines()]
    reports = [files.pop(run_folder.REPORT).decode() for files in (before, after)]
    assert after == before
    shown = f"<td>step {result['step']}, EMA, local on 1 process</td>"
    assert [text.count(shown) for text in reports] == [0, 1]
    assert (line["split"], line["step"], line["weights"]) == ("test", result["step"], "ema")
    assert line["metrics"] == result["metrics"] == logged(run, "test")


def test_a_run_logs_its_test_split_after_its_last_evaluation(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").open()]
    assert [line["split"] for line in lines if line["kind"] == "eval"] == ["val", "val", "test"]
    assert lines[-1]["metrics"] != logged(trained, "val")


@pytest.mark.slow
def test_two_processes_give_the_same_numbers_to_rounding(run, capfd):
    args = ["--split", "val", "--checkpoint", "6", "--engine", "ddp", "--nproc", "2", "--json"]
    assert main(["evaluate", str(run), *args]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["world_size"], found["step"], found["weights"]) == (2, 6, "ema")
    assert found["metrics"] == pytest.approx(logged(run, "val"), rel=1e-5)


def test_a_wrong_argument_is_an_error(run, monkeypatch, capsys):
    monkeypatch.chdir(run.parent)
    for args, lines in (
        (
            ["copy", "--checkpoint", "5"],
            ["no checkpoint '5' in copy", "allowed       best, last, 2, 4, 6"],
        ),
        (
            ["copy", "--split", "tset"],
            ["unknown split 'tset'", "allowed       train, val, test", "did you mean  test"],
        ),
        (["cpoy"], ["run folder 'cpoy' does not exist", "did you mean  copy"]),
    ):
        assert main(["evaluate", *args]) == 2
        err = capsys.readouterr().err
        assert [line for line in lines if line not in err] == []
        assert not (run / run_folder.EVALUATIONS).exists()


def test_a_damaged_checkpoint_is_named(run, capfd):
    path = next(checkpoint(run, 6).glob("rank-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert main(["evaluate", str(run), "--checkpoint", "6"]) == 1
    assert str(path) in capfd.readouterr().err
    assert not (run / run_folder.EVALUATIONS).exists()


@pytest.mark.slow
def test_the_weights_of_the_checkpoint_are_measured(run, capfd):
    def double(tensor):
        tensor *= 2

    change_tensor(checkpoint(run, 6), "ema|model.norm.weight|0", double)
    assert main(["evaluate", str(run), "--split", "val", "--checkpoint", "6", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["metrics"] != logged(run, "val")


def trained_on(module, tmp_path, **settings):
    """A run of a custom task."""
    found = launcher.train(
        model=f"{module}:Line",
        settings={"train.epochs": 1, **settings},
        out=tmp_path / "run",
        console=False,
    )
    return found.folder


@pytest.mark.slow
def test_data_without_the_labels_of_the_run_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("labeled", "bare"):
        (tmp_path / name).touch()
    head = HEAD + "from models.base import Goal\n\n"
    folder = trained_on(write(tmp_path, head + LINE + DATA + BODY + "\n" + OTHER_GOAL), tmp_path)
    (tmp_path / "bare").touch()
    assert main(["evaluate", str(folder), "--data", "bare"]) == 2
    assert "the data has no labels for val_loss" in capfd.readouterr().err


def test_a_task_without_a_test_split_is_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    head = HEAD + "from models.custom import _FixedSamples\n\n"
    module = write(tmp_path, head + LINE + BODY + "\n" + NO_TEST)
    with pytest.raises(SettingsError, match="the task has no split 'test'") as error:
        trained_on(module, tmp_path, **{"eval.test": True})
    assert "allowed       train, val" in str(error.value)
    assert not (tmp_path / "run").exists()
