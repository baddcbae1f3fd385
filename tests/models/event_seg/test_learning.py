import pytest
import torch


def result(task, train, counts_of, steps):
    task.setup()
    torch.manual_seed(0)
    model = task.build()
    train(task, model, steps=steps)
    metric, counts = counts_of(task, model, "val", 16)
    return metric.result(counts)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_tiny_finds_edges_far_better_than_chance(make_task, train, counts_of):
    found = result(make_task(), train, counts_of, steps=50)
    assert found["val_iou"] > 1.5 * found["all_foreground_iou"] + 0.1
    assert found["precision"] > found["all_foreground_iou"]


@pytest.mark.slow
def test_without_information_tiny_ends_at_chance(make_task, train, counts_of):
    task = make_task(control="shuffle")
    found, band = result(task, train, counts_of, steps=50), task.facts()["control"]["val_iou"]
    assert band["chance"] == pytest.approx(found["all_foreground_iou"])
    assert found["val_iou"] <= band["max"] == band["chance"] + 0.03
