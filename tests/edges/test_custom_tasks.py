"""A custom task is loaded from its own project, trains with its optimizer, and needs no test split."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gearshift.launcher.__main__ import main
from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.custom_task import folder_for
from gearshift.launcher.config.settings_file import read_values
from gearshift.training.optim import optimizer as optim
from gearshift.training.settings import nested
from tests.launcher.given import resolved
from tests.launcher.runs import trained
from tests.launcher.saved_runs import change_state, checkpoint
from tests.training.tiny import make_settings, one_rank

TASK = "copied_task:Line"


@pytest.fixture
def projects(tmp_path, monkeypatch):
    """`first` is copied to `copy`, both with their run; the user stands elsewhere."""
    for folder in (tmp_path / "first", tmp_path / "copy"):
        (folder / "runs/a").mkdir(parents=True)
        (folder / "copied_task.py").write_text("")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def found(recorded, run):
    return folder_for(TASK, str(recorded), run / "settings.yaml", f"{run}/settings.yaml:3")


def test_a_recorded_folder_counts_if_it_is_the_very_path(projects):
    first, copy = projects / "first", projects / "copy"
    for run in (first / "runs/a", copy / "runs/a", projects / "elsewhere"):
        assert found(first, run) == str(first)
    assert folder_for(TASK, None, copy / "runs/a/settings.yaml", "") is None


def test_a_folder_that_does_not_count_is_an_error_naming_file_and_option(projects):
    first, copy, run = projects / "first", projects / "copy", projects / "copy/runs/a"
    (projects / "link").symlink_to(copy)
    (run / "copied_task.py").write_text("")
    folders = ["../copy", ".", f"{first}/../copy", projects / "link", projects / "gone"]
    for folder in (*folders, run, run / "checkpoints", "~", "/proc/self/cwd/../copy", "/\0"):
        with pytest.raises(SettingsError) as raised:
            found(folder, run)
        (error,) = raised.value.diagnostics
        assert (error.key, error.where) == ("model.folder", f"{run}/settings.yaml:3")
        assert error.hint == "--set model.folder=DIR"


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    """A run with its task beside it and inside of it, as an archive has it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    run, mark = tmp_path / "down/run", tmp_path / "EXECUTED"
    trained(run, resolved(), 2)
    for folder in (run, run.parent):
        (folder / "strange_task.py").write_text(f"open({str(mark)!r}, 'w')\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield run
    assert not mark.exists()


@pytest.mark.parametrize("folder", ["/gone", "../down", "."])
def test_no_command_runs_code_that_came_with_a_run(downloaded, folder, capfd):
    run = downloaded
    chosen = {"family": "strange_task:Line", "folder": str(run) if folder == "." else folder}
    settings = nested(read_values(run / "settings.yaml"))
    (run / "settings.yaml").write_text(json.dumps({**settings, "model": chosen}))
    dotted = {f"model.{name}": value for name, value in chosen.items()}
    change_state(checkpoint(run, 2), lambda state: state["facts"]["settings"].update(dotted))
    for words in (
        *(["evaluate", run], ["predict", run, "--input", "x"], ["verify", run], ["resume", run]),
        *(["explain", "--resume", run], ["plan", "--config", run / "settings.yaml"]),
        *(["resume", run, "--dry-run"], ["--mode", run / "settings.yaml", "--dry-run"]),
    ):
        code, text = main([str(word) for word in words]), capfd.readouterr().err
        assert (code, "model.folder" in text, "settings.yaml" in text) == (2, True, True), text


def in_two_groups(parameters):
    groups = [
        {"params": [p for p in parameters if p.ndim == n], "momentum": m}
        for n, m in ((2, 0.9), (1, 0))
    ]
    return torch.optim.SGD(groups, lr=0.0)


def test_the_optimizer_of_a_task_keeps_its_groups_and_options():
    model, task = nn.Linear(3, 2), SimpleNamespace(optimizer=in_two_groups)
    spec = optim.spec(make_settings(), model, one_rank(), task=task)
    built = spec.build([{"params": list(model.parameters()), **spec.options[0]}])
    matrices, others = built.param_groups
    assert (matrices["momentum"], others["momentum"]) == (0.9, 0)
    assert [p.ndim for p in matrices["params"] + others["params"]] == [2, 1]


COMPLEX = """
import torch
from gearshift.models.custom import CustomTask


class Turn(CustomTask):
    def samples(self, split):
        return [{"x": torch.ones(2)}] * 64

    def build(self):
        model = torch.nn.Linear(2, 2)
        model.register_buffer("turn", torch.ones(2, dtype=torch.complex64))
        return model

    def measure(self, model, batch):
        return {"loss": model(batch["x"]).sum()}
"""


def test_a_model_that_no_checkpoint_holds_ends_before_anything_is_written(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "complex_task.py").write_text(COMPLEX)
    code, text = main(["--model", "complex_task:Turn", "--out", "run"]), capfd.readouterr().err
    assert (code, "'turn'" in text, "Traceback" in text) == (2, True, False), text
    assert not (tmp_path / "run").exists()
