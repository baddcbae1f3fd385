"""Scores of trained tiny: far above chance on real data, at chance in the controls."""

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
@pytest.mark.parametrize("control", ["noise", "shuffle"])
def test_without_information_tiny_ends_at_chance(make_task, train, counts_of, control):
    task = make_task(control=control)
    found, band = result(task, train, counts_of, steps=50), task.facts()["control"]["val_iou"]
    assert band["chance"] == pytest.approx(found["all_foreground_iou"])
    assert found["val_iou"] <= band["max"] == band["chance"] + 0.03


@pytest.mark.slow
@pytest.mark.parametrize(("control", "least", "most"), [("real", 0.1, 1), ("noise", -1, 0.03)])
def test_hidden_events_are_predicted_from_visible_events_only(
    make_task, train, counts_of, control, least, most
):
    task = make_task(control=control, objective="masked-voxels")
    found = result(task, train, counts_of, steps=150)
    assert least < found["val_masked_r2"] <= most
    if control == "noise":
        assert task.facts()["control"] == {"val_masked_r2": {"max": 0.03, "chance": 0.0}}


@pytest.mark.slow
@pytest.mark.parametrize(("control", "least", "most"), [("real", 0.03, 1), ("noise", -1, 0.03)])
def test_stage_encoder_predicts_hidden_events_from_visible_events_only(
    make_task, train, counts_of, control, least, most
):
    task = make_task(control=control, stage="encoder")
    found = result(task, train, counts_of, steps=200)
    assert least < found["val_masked_r2"] <= most
