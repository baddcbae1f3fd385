from functools import partial

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
from gearshift.training.checkpoint.reader import CheckpointWeights
from tests.models.errors import error_of
from tests.training.checkpoint.states import saving

WHOLE = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.arange(4.0),
    "count": torch.tensor([3, 4]),
}


def saved_model(run, tensors, average=None, score=None):
    """The checkpoint of step 1 of a model; `average`: of "b"; a `score` adds model.safetensors."""
    alone = ProcessWorld(RankInfo(), torch.device("cpu"), 10.0)
    buffers = {name: tensor for name, tensor in tensors.items() if not tensor.is_floating_point()}
    weights = {name: tensor for name, tensor in tensors.items() if name not in buffers}
    pieces = [Piece("weight", name, 0, tensor.reshape(-1)) for name, tensor in weights.items()]
    if average is not None:
        pieces.append(Piece("ema", "b", 0, average))
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    writer = saving(run, alone)
    state = State(shapes, pieces, buffers, {}, [], {})
    writer.save(1, state, {"samples": 1}, True, score)
    return writer.wait()


def read(path):
    stored = InitialWeights(path, "model.start", CheckpointWeights)
    found = {
        n: torch.empty(tensor.shape, dtype=WHOLE[n].dtype) for n, tensor in stored.tensors.items()
    }
    for name, tensor in found.items():
        stored.read_into(name, tensor)
    return found


def test_of_a_checkpoint_without_a_weights_file_the_average_of_a_parameter_counts(tmp_path):
    for average in (None, torch.full((4,), 9.0)):
        run = tmp_path / f"{average is None}"
        run.mkdir()
        folder = saved_model(run, WHOLE, average)
        assert not (folder / "model.safetensors").exists()
        found = read(folder)
        expected = WHOLE if average is None else {**WHOLE, "b": average}
        assert found.keys() == expected.keys()
        assert all(found[name].equal(expected[name]) for name in expected)


def test_a_run_folder_gives_its_best_checkpoint_then_the_last_then_the_newest(tmp_path):
    def checkpoint(name):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for file in ("manifest.json", "state.json"):
            (folder / file).touch()
        return folder

    assert find(tmp_path) is None
    for number in (2, 10):
        newest = checkpoint(f"checkpoints/step-{number:08d}")
    assert find(tmp_path) == newest
    last = checkpoint("last")
    assert find(tmp_path) == last
    best = checkpoint("best")
    assert find(tmp_path) == best
    save_file(WHOLE, best / "model.safetensors")
    assert find(tmp_path) == find(best) == best / "model.safetensors"


def test_incomplete_and_damaged_checkpoints_are_errors(tmp_path):
    folder = saved_model(tmp_path, WHOLE)
    assert read(folder)["count"].tolist() == [3, 4]
    (folder / "rank-00000.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"model.start .* cannot be read: "):
        read(folder)
    with pytest.raises(DataError, match=r"model.start .* has no weights"):
        InitialWeights(tmp_path / "elsewhere", "model.start")
    with pytest.raises(DataError, match=r"no model\.safetensors") as error:
        InitialWeights(folder, "model.start")
    assert "open_checkpoint" in error.value.hint


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


@pytest.mark.parametrize(
    "name", ["rank-00000.safetensors", "state.json", "manifest.json", "model.safetensors"]
)
def test_a_flipped_bit_of_a_checkpoint_is_found_before_its_weights_are_used(tmp_path, name):
    model = torch.nn.Linear(3, 2)
    weights = {n: p.detach() for n, p in model.named_parameters()}
    # Without model.safetensors, the weights are joined.
    score = None if name.startswith(("rank", "state")) else Score("l", 1.0, "min")
    folder = saved_model(tmp_path, weights, score=score)
    load = partial(initial_weights.load, open_checkpoint=CheckpointWeights)
    load("model.start", model, folder, "weights")
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    error = error_of(load, "model.start", model, folder, "weights")
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
