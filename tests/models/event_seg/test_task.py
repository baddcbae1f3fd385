import numpy as np
import pytest

from gearshift.models.base import DataError
from tests.models.errors import error_of
from tests.models.event_seg.writers import random_events, write_masks, write_mvsec, write_raw


@pytest.fixture
def recording(tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return write_raw(tmp_path / "data" / "a.raw", random_events(6000, 600_000))


def test_embedded_data_is_split_by_clip(ready_task, tmp_path):
    task = ready_task(tmp_path)
    facts = task.facts()
    assert facts["groups"] == {"train": 16, "val": 4, "test": 4}
    assert facts["samples"] == {"train": 320, "val": 80, "test": 80}
    assert facts["split"] == "by recording"
    assert facts["labels"] == "Canny 100/200 on the frame ending the window, dilated 5×5"
    assert "samples of 32×44" in facts["sensor"] and facts["windows"] == "33.3 ms, 480 windows"
    assert len(facts) <= 12 and "in 24 recordings of 16 s" in facts["events"]


def test_the_foreground_weight_is_computed_on_the_training_split(ready_task):
    task = ready_task()
    share = task.facts()["foreground"]["train"]
    weight = task.build().class_weights
    assert weight[0] == 1 and weight[1].item() == pytest.approx((1 - share) / share, rel=1e-3)
    task.foreground["train"] = 0.01
    assert task.build().class_weights.tolist() == [1, 10]


def test_mvsec_trains(ready_task, tmp_path):
    path = write_mvsec(tmp_path / "outdoor_day1_data.hdf5", frames=60)
    task = ready_task(path=path, downsample=2)
    facts = task.facts()
    assert facts["format"].startswith("MVSEC HDF5") and facts["time_unit"] == "s, by the format"
    assert facts["sensor"] == "52×69 (from frames), downsampled by 2, samples of 26×34"
    assert facts["split"].startswith("by time") and sum(facts["samples"].values()) == 57
    sample = task.data("val").sample(3, None)
    assert np.abs(sample["events"]).sum((1, 2)).min() > 0  # events in each of the ten bins


def test_every_parameter_of_a_deep_size_trains(ready_task, tmp_path, batch_of):
    path = write_mvsec(tmp_path / "outdoor_day1_data.hdf5", frames=30)
    task = ready_task(path=path, size="lite-1M")
    model = task.build()
    task.loss(model, batch_of(task, 2)).sum.backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_a_recording_with_masks_trains(ready_task, recording, draws):
    write_masks(recording, np.arange(20_000, 600_000, 20_000))
    task = ready_task(path=recording)
    assert task.facts()["labels"] == "masks of a_masks.h5"
    batch = task.collate([task.data("train").sample(i, draws(i)) for i in (0, 1)])
    task.loss(task.build(), batch).sum.backward()
    assert set(np.unique(batch["mask"])) == {0, 1}


def test_recordings_without_labels_are_an_error(ready_task, recording):
    error = error_of(ready_task, path=recording)
    assert error.message == "'a.raw' has no labels"
    assert error.where == str(recording) and "a_masks.h5" in error.allowed


def test_labels_of_one_class_are_an_error(ready_task, tmp_path):
    images = np.zeros((40, 52, 69), np.uint8)
    path = write_mvsec(tmp_path / "a.hdf5", frames=40, image_raw=images)
    with pytest.raises(DataError, match="all training labels are background"):
        ready_task(path=path)


def test_stage_encoder_trains_the_encoder_by_the_labels(ready_task, batch_of):
    task = ready_task(stage="encoder")
    model = task.build().train()
    task.loss(model, batch_of(task)).sum.backward()
    assert {n.partition(".")[0] for n, p in model.named_parameters() if p.grad is not None} == {
        "down"
    }
    assert not any(module.training for module in model.up.modules())


def test_an_experience_has_the_resolution_of_the_run(ready_task):
    first, second, coarse = (ready_task(downsample=factor) for factor in (1, 1, 4))
    second.continue_from(first)
    with pytest.raises(DataError, match="height and width are"):
        coarse.continue_from(first)
