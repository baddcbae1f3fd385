"""A custom task is loaded from its own project, trains with its optimizer, and needs no test split."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engines.base import EngineError
from launcher.base.diagnostics import SettingsError
from launcher.config.custom_task import folder_for
from models.base import DataError
from models.custom import CustomTask
from tests.launcher.custom_tasks import BODY, HEAD, LINE
from tests.launcher.given import resolved
from tests.training.tiny import make_settings, one_rank
from training.evaluation.evaluate import samples_of
from training.optim import optimizer as optim

TASK = "copied_task:Line"


def project(folder, run="runs/a"):
    (folder / run).mkdir(parents=True)
    (folder / "copied_task.py").write_text("")
    return folder


def test_a_copied_or_moved_project_has_its_own_module(tmp_path, capsys):
    first, copy = project(tmp_path / "first"), project(tmp_path / "copy")
    for _ in range(2):
        assert folder_for(TASK, str(first), copy / "runs/a") == str(copy)
    assert capsys.readouterr().err == (
        f"note: {TASK} is loaded from {copy}, beside the run, not from {first}, where it was "
        "trained\n"
    )
    moved = project(tmp_path / "moved", "deep/runs/a")
    assert folder_for(TASK, str(tmp_path / "gone"), moved / "deep/runs/a") == str(moved)


def test_a_run_outside_of_its_project_keeps_the_recorded_module(tmp_path, capsys):
    first = project(tmp_path / "first")
    other = project(tmp_path / "other", "runs/b")  # a module of the same name above the run
    (tmp_path / "elsewhere/runs/c").mkdir(parents=True)
    for run in (first / "runs/a", other / "runs/b", tmp_path / "elsewhere/runs/c"):
        assert folder_for(TASK, str(first), run) == str(first)
    assert folder_for(TASK, None, other / "runs/b") is None
    assert capsys.readouterr().err == ""


def in_two_groups(parameters):
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "momentum": 0.9},
        {"params": [p for p in parameters if p.ndim <= 1]},
    ]
    return torch.optim.SGD(groups, lr=0.0)


def built(build):
    model = nn.Linear(3, 2)
    spec = optim.spec(make_settings(), model, one_rank(), task=SimpleNamespace(optimizer=build))
    return spec.build([{"params": list(model.parameters()), **spec.options[0]}])


def test_the_optimizer_of_a_task_keeps_its_groups_and_options():
    matrices, others = built(in_two_groups).param_groups
    assert (matrices["momentum"], others["momentum"]) == (0.9, 0)
    assert [p.ndim for p in matrices["params"] + others["params"]] == [2, 1]


def test_an_optimizer_of_less_than_all_parameters_is_an_error():
    with pytest.raises(EngineError, match="optimizer returns a NoneType, not a torch"):
        built(lambda parameters: None)
    too_few = "has 1 parameters, and the model trains 2; freeze the others"
    with pytest.raises(EngineError, match=too_few):
        built(lambda parameters: torch.optim.SGD(parameters[:1], lr=0.1))


@pytest.fixture
def own_optimizer(tmp_path, monkeypatch):
    method = "    def optimizer(self, parameters):\n        return torch.optim.SGD(parameters)\n"
    (tmp_path / "task_with_optimizer.py").write_text(HEAD + LINE + BODY + method)
    monkeypatch.syspath_prepend(tmp_path)
    return "task_with_optimizer:Line"


def test_an_engine_that_shards_the_optimizer_of_a_task_is_an_error(own_optimizer):
    for engine in ("oss", "zero2"):
        with pytest.raises(SettingsError) as raised:
            resolved(model=own_optimizer, engine=engine, nproc="2")
        (error,) = raised.value.diagnostics
        parts = f"has its own optimizer, to which engine {engine} gives parts of parameters"
        assert error.message == f"{own_optimizer} {parts}"
        assert (error.allowed, error.fix) == ("local, ddp, fsdp, fsdp-offload", "--engine fsdp")
    found = resolved("optim.weight_decay=0.5", "optim.lr=0.1", model=own_optimizer).warnings
    assert [warning.message for warning in found] == [
        f"optim.weight_decay 0.5 has no effect: {own_optimizer} has its own optimizer"
    ]


class NoTest(CustomTask):
    def __init__(self, test):
        super().__init__(None, None, None)  # type: ignore[arg-type]
        self.test = test

    def samples(self, split):
        return self.test() if split == "test" else [(1.0, 2.0)]

    def build(self):
        return nn.Linear(1, 1)

    def measure(self, model, batch):
        return {"loss": model(batch["input"]).sum()}


def raises(error):
    def test():
        raise error

    return test


def test_a_task_may_lack_a_test_split():
    for test in (lambda: None, list, raises(KeyError("test"))):
        task = NoTest(test)
        task.setup()
        assert task.facts() == {"samples": {"train": 1, "val": 1}}
        with pytest.raises(DataError, match="the task has no split 'test'") as raised:
            samples_of(task, "test", 0)
        assert raised.value.allowed == "train, val"
    with pytest.raises(KeyError, match="labels"):
        NoTest(raises(KeyError("labels"))).setup()


def test_the_error_of_data_names_the_field_to_add(tmp_path, monkeypatch):
    (tmp_path / "task_without_path.py").write_text(HEAD + LINE + BODY)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError) as raised:
        resolved(model="task_without_path:Line", data=str(tmp_path))
    (error,) = raised.value.diagnostics
    assert (error.message, error.did_you_mean) == ("unknown setting 'data.path'", None)
    assert error.fix == (
        "in Line:  class Data(BaseModel): path: str | None = None  "
        "(samples reads self.data_settings.path)"
    )
