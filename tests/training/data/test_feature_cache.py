"""A frozen encoder runs over the data once; its features are cached under a unique key."""

import pickle

import numpy as np
import pytest
import torch

from gearshift.engines.world import open_world
from gearshift.training.data.feature_cache import Rows
from gearshift.training.settings import SettingError
from tests.training.data.encoding_task import EncodingTask, Net, encoded


@pytest.fixture
def world():
    return open_world("cpu", 5.0, always_group=False)


def expected(split):
    """The encoder outputs of a split, computed here."""
    torch.manual_seed(0)
    inputs = EncodingTask().encoder_inputs(split)
    x = torch.from_numpy(np.stack([inputs.row(n) for n in range(len(inputs))]))
    with torch.no_grad():
        return Net().encoder.eval()(x).numpy()


def memories(found, split):
    return np.stack([row["memory"] for row in found["rows"][split]])


def test_cached_features_are_the_encoder_outputs_without_dropout(world, tmp_path):
    found = encoded(world, tmp_path)
    assert found["does"]
    for split in ("train", "val"):
        np.testing.assert_allclose(memories(found, split), expected(split), rtol=1e-6)
    assert found["messages"] == [f"feature cache: {26 * 16} B in {next(tmp_path.iterdir())}"]


def test_the_second_run_reads_the_cache_of_the_first(world, tmp_path):
    first, second = encoded(world, tmp_path), encoded(world, tmp_path)
    assert first["passes"] == 5 and second["passes"] == 0  # 3 of train, 1 of val, 1 for the shape
    np.testing.assert_array_equal(memories(first, "train"), memories(second, "train"))
    assert second["messages"][0].startswith("feature cache: read from ")


@pytest.mark.parametrize("change", [{"weights": 1}, {"task": EncodingTask(seed=9)}], ids=str)
def test_other_weights_and_other_data_are_another_cache(world, tmp_path, change):
    encoded(world, tmp_path)
    assert encoded(world, tmp_path, **change)["passes"] == 5
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("engine", ["ddp", "zero3"])
def test_ranks_share_the_encoding_and_get_the_features_of_one_rank(
    two_ranks, world, tmp_path, engine
):
    (tmp_path / "one").mkdir()
    alone = encoded(world, tmp_path / "one")
    first, second = two_ranks.run(encoded, tmp_path / "two", None, engine)
    for found in (first, second):
        np.testing.assert_array_equal(memories(found, "train"), memories(alone, "train"))
        np.testing.assert_array_equal(memories(found, "val"), memories(alone, "val"))
    assert first["passes"] == second["passes"] == 3  # 2 of 4 batches, and one for the shape
    (first_name,), (second_name,) = (
        [f.name for f in (tmp_path / n).iterdir()] for n in ("one", "two")
    )
    assert first_name == second_name  # an engine and the number of ranks make no other cache


def test_varying_inputs_switch_the_cache_off_with_a_reason(world, tmp_path):
    found = encoded(world, tmp_path, EncodingTask(varying_inputs="the shift of windows"))
    assert not found["does"] and "x" in found["rows"]["train"][0] and not list(tmp_path.iterdir())
    assert found["messages"] == [
        "feature cache: off, the encoder runs in each step: "
        "the shift of windows changes the inputs of the encoder in each epoch"
    ]


def test_a_cache_above_the_limit_is_not_written_and_an_error_if_it_must_be(world, tmp_path):
    found = encoded(world, tmp_path, limit_gb=4e-7)
    assert not found["does"] and not list(tmp_path.iterdir())
    assert found["messages"][0].endswith("it needs 416 B, and feature_cache.limit_gb is 4e-07")
    with pytest.raises(SettingError, match="'on' is impossible: it needs 416 B"):
        encoded(world, tmp_path, mode="on", limit_gb=4e-7)


def test_what_a_killed_run_or_a_full_disk_left_out_is_computed_by_the_next_run(
    world, tmp_path, monkeypatch
):
    saves, save = [], np.save

    def full(file, array):
        saves.append(len(array))
        save(file, array)
        if len(saves) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    found = encoded(world, tmp_path)
    assert not found["does"] and found["messages"][-1].endswith("No space left on device")
    monkeypatch.undo()
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "train-00000000.npy",
        "train-00000001.npy",
    ]
    again = encoded(world, tmp_path)
    assert again["does"] and again["passes"] == 3  # the two missing ones, and for the shape
    np.testing.assert_allclose(memories(again, "train"), expected("train"), rtol=1e-6)


def test_rows_are_pickled_for_workers_and_read_by_numpy_alone(world, tmp_path):
    encoded(world, tmp_path)
    (folder,) = tmp_path.iterdir()
    row = pickle.loads(pickle.dumps(Rows(folder, "train")))[17]["memory"]
    np.testing.assert_array_equal(row, np.load(folder / "train-00000002.npy")["memory"][1])
    assert row.flags.owndata
