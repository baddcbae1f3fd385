import json

import pytest
import torch
from safetensors.torch import save_file

from gearshift.engines.base import Piece, State
from gearshift.engines.environment import RankInfo
from gearshift.engines.world import ProcessWorld
from gearshift.models.base import DataError
from gearshift.models.common import initial_weights
from gearshift.models.common.initial_weights import InitialWeights, find
from gearshift.training.checkpoint.manifest import Score
from tests.models.errors import error_of
from tests.training.checkpoint.states import saving

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
    found = {
        n: torch.empty(tensor.shape, dtype=WHOLE[n].dtype) for n, tensor in stored.tensors.items()
    }
    for name, tensor in found.items():
        stored.read_into(name, tensor)
    return found


def test_pieces_of_several_processes_are_joined_and_the_average_of_a_parameter_counts(tmp_path):
    for world_size in (1, 3):
        found = read(write_checkpoint(tmp_path / f"{world_size}", world_size))
        assert found.keys() == WHOLE.keys()
        assert all(found[name].equal(WHOLE[name]) for name in WHOLE)
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
    (folder / "rank-00001.safetensors").unlink()
    with pytest.raises(DataError, match=r"model.start .* cannot be read: a is incomplete"):
        read(folder)
    (folder / "rank-00000.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"model.start .* cannot be read: "):
        read(folder)
    with pytest.raises(DataError, match=r"model.start .* has no weights"):
        InitialWeights(tmp_path / "elsewhere", "model.start")


@pytest.mark.parametrize(
    ("change", "matched", "where"),
    [
        ({"a.weight": None}, 1, "a.weight"),
        ({"a.extra": torch.zeros(1)}, 2, "a.extra"),
        ({"a.weight": torch.zeros(2, 2)}, 1, "a.weight"),
    ],
)
def test_missing_tensors_are_an_error_and_change_nothing(tmp_path, change, matched, where):
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2), "b": torch.nn.Linear(2, 2)})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stored = {name: torch.ones_like(tensor) for name, tensor in before.items()} | change
    path = tmp_path / "a.safetensors"
    save_file({name: tensor for name, tensor in stored.items() if tensor is not None}, path)
    error = error_of(initial_weights.load, "model.encoder", model, path, "an encoder", ("a.",))
    assert f"is another encoder: {matched} of 2 tensors match" in error.message
    assert error.where == where
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def saved_model(run, model):
    """The checkpoint of step 1 of a model, with model.safetensors."""
    alone = ProcessWorld(RankInfo(), torch.device("cpu"), 10.0)
    tensors = {name: tensor.detach() for name, tensor in model.named_parameters()}
    pieces = [Piece("weight", name, 0, tensor.reshape(-1)) for name, tensor in tensors.items()]
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    writer = saving(run, alone)
    writer.save(
        1, State(shapes, pieces, {}, {}, [], {}), {"samples": 1}, True, Score("l", 1.0, "min")
    )
    return writer.wait()


@pytest.mark.parametrize(
    "name", ["rank-00000.safetensors", "state.json", "manifest.json", "model.safetensors"]
)
def test_a_flipped_bit_of_a_checkpoint_is_found_before_its_weights_are_used(tmp_path, name):
    model = torch.nn.Linear(3, 2)
    folder = saved_model(tmp_path, model)
    weights = folder / "model.safetensors"
    if name.startswith(("rank", "state")):  # the weights are then joined
        weights.unlink()
    initial_weights.load("model.start", model, folder, "weights")
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    error = error_of(initial_weights.load, "model.start", model, folder, "weights")
    assert str(folder) in error.message


@pytest.mark.parametrize(
    ("value", "is_trained"), [(torch.nan, True), (torch.inf, True), (torch.nan, False)]
)
def test_a_weight_that_is_not_finite_is_named_with_its_file(tmp_path, value, is_trained):
    model = torch.nn.Linear(3, 2).requires_grad_(is_trained)
    path = tmp_path / "a.safetensors"
    save_file({**model.state_dict(), "bias": torch.tensor([0.0, value])}, path)
    error = error_of(initial_weights.load, "model.start", model, path, "weights")
    assert "'bias'" in error.message and error.where == str(path)


def test_a_weight_that_is_not_trained_may_be_infinite(tmp_path):
    model = torch.nn.Linear(3, 2).requires_grad_(False)
    mask = torch.tensor([0.0, -torch.inf])
    save_file({**model.state_dict(), "bias": mask}, tmp_path / "a.safetensors")
    initial_weights.load("model.start", model, tmp_path / "a.safetensors", "weights")
    assert model.bias.equal(mask)
