"""Initial weights from every place that stands for them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from models.base import DataError
from models.common import initial_weights
from models.common.initial_weights import InitialWeights, find
from models.eeg_text.config import SIZES
from models.eeg_text.network import EegText, MaskedEeg

WHOLE = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.arange(4.0),
    "count": torch.tensor([3, 4]),
}


def write_checkpoint(folder, world_size=2, average=None):
    """A checkpoint of `WHOLE` in flat pieces, one per process, with an optimizer slot."""
    folder.mkdir(parents=True)
    names = [f"rank-{rank:05d}.safetensors" for rank in range(world_size)]
    for rank, name in enumerate(names):
        pieces = {}
        for kind, key in (("weight", "a"), ("weight", "b"), ("buffer", "count"), ("exp_avg", "a")):
            flat = WHOLE[key].flatten() * (-1 if kind == "exp_avg" else 1)
            first, last = (len(flat) * n // world_size for n in (rank, rank + 1))
            pieces[f"{kind}|{key}|{first}"] = flat[first:last].clone()
        if average is not None and rank == 0:
            pieces["ema|b|0"] = average
        save_file(pieces, folder / name)
    shapes = {key: list(WHOLE[key].shape) for key in ("a", "b")}
    state = {"shapes": shapes, "buffers": {"count": [2]}}
    (folder / "state.json").write_text(json.dumps(state))
    files = [{"name": name} for name in ("state.json", *names)]
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    return folder


def read(path):
    stored = InitialWeights(path, "model.start")
    found = {n: torch.empty(s, dtype=WHOLE[n].dtype) for n, s in stored.shapes.items()}
    for name, tensor in found.items():
        stored.read_into(name, tensor)
    return found


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_pieces_of_several_processes_are_joined(tmp_path, world_size):
    found = read(write_checkpoint(tmp_path / "c", world_size))
    assert found.keys() == WHOLE.keys()
    assert all(found[name].equal(WHOLE[name]) for name in WHOLE)


def test_the_average_of_a_parameter_counts(tmp_path):
    found = read(write_checkpoint(tmp_path / "c", average=torch.full((4,), 9.0)))
    assert found["b"].eq(9).all() and found["a"].equal(WHOLE["a"])


def test_a_run_folder_gives_its_best_checkpoint_then_the_last_then_the_newest(tmp_path):
    assert find(tmp_path) is None
    for number in (2, 10):
        newest = write_checkpoint(tmp_path / "checkpoints" / f"step-{number:08d}")
    assert find(tmp_path) == newest
    last = write_checkpoint(tmp_path / "last")
    assert find(tmp_path) == last
    best = write_checkpoint(tmp_path / "best")
    assert find(tmp_path) == best
    save_file(WHOLE, best / "model.safetensors")
    assert find(tmp_path) == find(best) == best / "model.safetensors"
    assert read(tmp_path)["count"].tolist() == [3, 4]


def test_incomplete_and_damaged_checkpoints_are_errors(tmp_path):
    folder = write_checkpoint(tmp_path / "c")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({"files": manifest["files"][:2]}))
    with pytest.raises(DataError, match=r"model.start .* cannot be read: a is incomplete"):
        read(folder)
    (folder / "rank-00000.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"model.start .* cannot be read: "):
        read(folder)
    with pytest.raises(DataError, match=r"model.start .* has no weights"):
        InitialWeights(tmp_path / "elsewhere", "model.start")


@pytest.fixture
def first():
    torch.manual_seed(1)
    return MaskedEeg(SIZES["tiny"], 160, 0.0)


@pytest.fixture
def second():
    torch.manual_seed(2)
    return EegText(SIZES["tiny"], 160, 256, 0.0)


def load(model, place):
    """Load the encoder of `model`."""
    return initial_weights.load("model.encoder", model, place, "an encoder", ("encoder.",))


def test_all_weights_of_a_pre_trained_encoder_are_loaded(tmp_path, first, second):
    path = tmp_path / "best" / "model.safetensors"
    path.parent.mkdir()
    save_file(first.state_dict(), path)
    summary = load(second, tmp_path)
    expected = first.encoder.state_dict()
    assert expected.keys() == second.encoder.state_dict().keys()
    assert summary == f"loaded {len(expected)}/{len(expected)} tensors from {path}"
    for name, tensor in second.encoder.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("change", ["missing", "strange", "shape"])
def test_missing_tensors_are_an_error_and_change_nothing(tmp_path, first, second, change):
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    name = "encoder.project.weight"
    if change == "strange":
        state["encoder.extra"] = torch.zeros(1)
    elif change == "missing":
        del state[name]
    else:
        state[name] = state[name][:8].clone()
    save_file(state, tmp_path / "a.safetensors")
    before = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    with pytest.raises(DataError) as error:
        load(second, tmp_path / "a.safetensors")
    total = len(second.encoder.state_dict())
    matched = total if change == "strange" else total - 1
    assert f"is another encoder: {matched} of {total} tensors match" in error.value.message
    assert error.value.where == ("encoder.extra" if change == "strange" else name)
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_folder_without_weights_and_a_file_of_another_kind_are_errors(tmp_path, second):
    with pytest.raises(DataError) as error:
        load(second, tmp_path)
    assert error.value.message == f"model.encoder '{tmp_path}' has no weights"
    (tmp_path / "a.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="cannot be read"):
        load(second, tmp_path / "a.safetensors")
