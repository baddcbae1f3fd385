"""Defaults of the base class for a minimal task."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from gearshift.models.base import Context, DataError, Goal, Task
from gearshift.models.custom import CustomTask
from tests.models.errors import error_of

CONTEXT = Context(0, 0.1, None, torch.device("cpu"))


class Line(CustomTask):
    count = 6

    def samples(self, split):
        return [(np.full(2, float(i), np.float32), i % 3) for i in range(self.count)]

    def build(self):
        return nn.Linear(2, 3)

    def measure(self, model, batch):
        logits = model(batch["input"])
        loss = nn.functional.cross_entropy(logits, batch["target"], reduction="sum")
        third = batch["target"] == 2
        return {"loss": loss, "right": (logits.argmax(1)[third] == 2).sum(), "thirds": third.sum()}


def make_task(cls=Line):
    task = cls(SimpleNamespace(width=3), SimpleNamespace(), CONTEXT)
    task.setup()
    return task


def batch_of(task, *indices):
    return task.collate([task.data("train").sample(i, None) for i in indices])


def having(given):
    """A task whose splits are `given`, or what it gives for the name of a split."""
    samples = given if callable(given) else lambda split: given
    return type("Odd", (Line,), {"samples": lambda self, split: samples(split)})


def test_a_custom_task_has_every_task_method():
    names = [name for name in (*vars(Task), *Task.__annotations__) if name[0] != "_"]
    assert [name for name in names if not hasattr(make_task(), name)] == []


def test_samples_are_tuples_of_input_and_target_or_mappings():
    task = make_task()
    batch = batch_of(task, 0, 5)
    assert batch["input"].tolist() == [[0, 0], [5, 5]]
    assert batch["target"].tolist() == [0, 2] and task.num_units(batch) == 2
    assert task.collate([{"x": 1}, {"x": 2}])["x"].tolist() == [1, 2]
    for other in ({"x": ["a", "b", "c"]}, {"x": {"y": [torch.zeros(3), 1]}}):
        assert task.num_units(other) == 3
    with pytest.raises(DataError, match="a sample of Line is a Tensor") as wrong:
        task.collate([torch.zeros(2)])
    assert "tuple of input, target" in wrong.value.allowed


class Regression(Line):
    """Samples of numpy and Python as they come: inputs and labels have 64 bits."""

    def samples(self, split):
        rows = np.random.default_rng(0).normal(size=(self.count, 2))
        return [(row, {"sum": float(row.sum()), "index": i}) for i, row in enumerate(rows)]

    def measure(self, model, batch):
        found = model(batch["input"])[:, 0]
        return {"loss": nn.functional.mse_loss(found, batch["target"]["sum"], reduction="sum")}


def test_samples_in_float64_train_a_model_in_float32():
    task = make_task(Regression)
    batch, model = batch_of(task, 0, 1, 2), task.build()
    assert batch["input"].dtype == batch["target"]["sum"].dtype == torch.float32
    assert batch["target"]["index"].tolist() == [0, 1, 2]
    task.loss(model, batch).sum.backward()
    assert model.weight.grad.dtype == torch.float32
    halves = task.collate([(np.float16([1, 2]), 0)])
    assert halves["input"].dtype == torch.float16  # chosen: a model in 16 bits may want it


@pytest.mark.parametrize(
    "samples", [({"x": i} for i in range(3)), {"a": 1}, Dataset(), {1, 2}, [], lambda split: None]
)
def test_samples_without_a_length_or_an_index_are_refused(samples):
    wrong = error_of(make_task, having(samples))
    assert wrong.message.startswith("Odd.samples('train')")
    assert wrong.where.rpartition(":")[0] == __file__


def check(cls, count=3):
    task, numbers = make_task(cls), range(count)
    twice = batch_of(task, *numbers, *numbers)
    with torch.no_grad():
        task.check_measures(nn.Linear(2, 3), batch_of(task, *numbers), twice)


def measuring(function, **attributes):
    """A task whose `measure` maps the right sums with `function`."""
    measure = {"measure": lambda self, *given: function(Line.measure(self, *given))}
    return type("Given", (Line,), {**measure, **attributes})


@pytest.mark.parametrize(
    "function",
    [
        lambda m: m["loss"],
        lambda m: {"loss": m["loss"].repeat(4)},
        lambda m: {**m, "right": "no"},
        lambda m: {**m, "right": (1, None)},
        lambda m: {"loss": m["loss"] / m["loss"].detach()},
    ],
)
def test_a_wrong_measure_is_found_with_file_and_line(function):
    wrong = error_of(check, measuring(function))
    file, _, line = wrong.where.rpartition(":")
    assert (file, line.isdigit()) == (__file__, True) and wrong.allowed


def test_a_mean_over_the_batch_is_found_and_sums_are_not_refused():
    def mean(self, model, batch):
        return {"loss": nn.functional.cross_entropy(model(batch["input"]), batch["target"])}

    assert error_of(check, type("Mean", (Line,), {"measure": mean})).hint
    check(type("OneUnit", (Line,), {"measure": mean, "num_units": lambda self, batch: 1}))
    check(measuring(lambda m: {"loss": m["loss"] * 0}))
    check(Line, count=1)


def test_a_goal_that_measure_does_not_return_is_found():
    wrong = error_of(check, measuring(dict, goal=Goal("val_rigth", "max")))
    assert "the goal of Given is 'val_rigth'" in wrong.message
    assert (wrong.allowed, wrong.did_you_mean) == ("val_loss, val_right, val_thirds", "val_right")
    check(measuring(dict, goal=Goal("val_right", "max")))


def test_the_metric_adds_up_over_batches_to_that_of_all_samples():
    task, torch_model = make_task(), nn.Linear(2, 3)

    def measured(*batches):
        metric = task.metric()
        counts = sum(metric.update(torch_model, batch_of(task, *batch)) for batch in batches)
        return metric.result(counts)

    whole = measured(range(6))
    assert set(whole) == {"val_loss", "val_right", "val_thirds"}
    assert measured([0, 1, 2, 3], [4], [5]) == pytest.approx(whole, rel=1e-6)
    assert whole["val_thirds"] == pytest.approx(2 / 6)
    loss = task.loss(torch_model, batch_of(task, *range(6))).sum
    assert loss.item() / 6 == pytest.approx(whole["val_loss"], rel=1e-6)


def test_a_pair_is_averaged_over_its_own_count():
    class Pairs(Line):
        def measure(self, model, batch):
            found = super().measure(model, batch)
            return {"loss": found["loss"], "right": (found["right"], found["thirds"])}

    task, model = make_task(Pairs), nn.Linear(2, 3)
    nn.init.zeros_(model.weight)
    model.bias.data = torch.tensor([0.0, 0.0, 1.0])
    metric = task.metric()
    assert metric.result(metric.update(model, batch_of(task, *range(6))))["val_right"] == 1.0
    assert set(metric.result(torch.zeros(4)).values()) == {None}


def test_a_measure_without_a_loss_or_with_changing_names_is_an_error():
    class Silent(Line):
        def measure(self, model, batch):
            return {"accuracy": torch.tensor(1)}

    assert "'loss'" in error_of(check, Silent).allowed

    class Fickle(Line):
        def measure(self, model, batch):
            found = super().measure(model, batch)
            return {"loss": found["loss"]} if len(batch["target"]) == 1 else found

    metric = make_task(Fickle).metric()
    metric.update(nn.Linear(2, 3), batch_of(make_task(), 0, 1))
    with pytest.raises(ValueError, match="val_loss, val_right, val_thirds for one batch"):
        metric.update(nn.Linear(2, 3), batch_of(make_task(), 0))


def test_blocks_are_the_children_with_parameters_and_the_members_of_containers():
    a, b, c, d = (nn.Linear(2, 2) for _ in range(4))
    inner = nn.Sequential(nn.Sequential(a, nn.ReLU()), nn.ModuleList([b]))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.rest, self.act, self.last = c, inner, nn.ReLU(), d

    assert make_task().blocks(Net()) == [c, a, b, d]
    assert make_task().blocks(nn.Sequential(a, nn.ReLU(), b)) == [a, b]
