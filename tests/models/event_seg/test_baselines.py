import pytest
import torch

from gearshift.models.base import HasBaselines


def batch_of_squares(events, labels, ignored=()):
    """One window: an event at each (bin, row, column), foreground in 5×5 pixels around `labels`."""
    batch = {"events": torch.zeros(1, 10, 40, 40), "mask": torch.zeros(1, 40, 40, dtype=torch.long)}
    for sign, (at_bin, row, column) in enumerate(events):
        batch["events"][0, at_bin, row, column] = 2.5 * (-1) ** sign
    for value, centers in ((1, labels), (-100, ignored)):
        for row, column in centers:
            batch["mask"][0, row - 2 : row + 3, column - 2 : column + 3] = value
    return batch


def test_the_baseline_is_fitted_on_train_and_measured_on_the_rest(make_task):
    task = make_task()
    assert isinstance(task, HasBaselines)
    # Old events have no edge: neither their bin nor other squares than 5×5 pixels fit better.
    train = [
        batch_of_squares([(9, 10, 10), (7, 30, 30)], [(10, 10)]),
        batch_of_squares([(9, 20, 10), (9, 20, 20), (0, 30, 10)], [(20, 10), (20, 20)]),
    ]
    held_out = [
        batch_of_squares([(9, 10, 10), (7, 20, 20), (9, 30, 30)], [(10, 10)]),
        batch_of_squares([(9, 30, 30)], [(10, 10)], ignored=[(30, 30)]),
    ]
    (found,) = task.baselines(iter(train), iter(held_out))
    # One square is found, one is missed, and one is none.
    expected = {"val_iou": 1 / 3, "precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2}
    assert found.name == "a threshold on recent events"
    assert found.metrics == pytest.approx(expected)


def test_the_baseline_keeps_its_threshold(make_task):
    """A weak event has no edge in training, so it is none later, whatever its label."""
    weak = batch_of_squares([(9, 10, 10)], [])
    weak["events"] /= 2
    strong = batch_of_squares([(9, 30, 30)], [(30, 30)])
    other = batch_of_squares([(9, 10, 10)], [(10, 10)])
    other["events"] /= 2
    (found,) = make_task().baselines([weak, strong], [other, strong])
    assert found.metrics["recall"] == pytest.approx(1 / 2) and found.metrics["precision"] == 1
