"""Two states that differ by a single bit are distinguished, and the position is named."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from engines.base import State
from tests.training.checkpoint.states import BUFFERS, saving, state, whole
from training.checkpoint import compare as comparing
from training.checkpoint.compare import Tolerance, compare
from training.checkpoint.reader import Checkpoint, open_checkpoint

TENSORS = 13
"""Five weights, four of each of the two slots."""


@pytest.fixture
def write(tmp_path, alone) -> Callable[..., Checkpoint]:
    """Saves a state and opens the checkpoint; each in a run folder of its own."""

    def run(given: State, samples: int = 640) -> Checkpoint:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        saver = saving(folder, alone)
        saver.save(20, given, {"samples": samples}, periodic=True, score=None)
        return open_checkpoint(folder / "last")

    return run


def changed(kind: str, name: str, index: Any, value: float) -> State:
    """The usual state but for one element."""
    kinds = whole()
    kinds[kind][name][index] = value
    return state(kinds)


def test_equal_states_are_identical_with_their_nan(write):
    found = compare(write(state(whole())), write(state(whole())))
    assert found == comparing.TensorComparison(TENSORS + len(BUFFERS), 0, None, 0.0, None)


@pytest.mark.parametrize("kind", ["weight", "exp_avg_sq"])
def test_one_bit_is_found_by_kind_name_and_index(write, kind):
    before = float(whole()[kind]["embed.weight"][7, 3])
    bit = float(torch.nextafter(torch.tensor(before), torch.tensor(9.0)))
    found = compare(write(state(whole())), write(changed(kind, "embed.weight", (7, 3), bit)))
    assert found.differing == 1
    assert found.first == comparing.Difference(kind, "embed.weight", (7, 3), before, bit)
    assert found.first.place == f"{kind} of embed.weight[7, 3]"
    assert found.largest_in == f"{kind} of embed.weight"
    assert 0 < found.largest < 1e-6


def test_minus_zero_differs_from_zero_with_distance_0(write):
    ours = write(changed("weight", "odd|name", 2, 0.0))
    theirs = write(changed("weight", "odd|name", 2, -0.0))
    assert compare(ours, theirs).first.place == "weight of odd|name[2]"
    assert compare(ours, theirs, tolerance=Tolerance(1e-9, 0.0)).first is None


def test_scalars_and_nonfinite_values_are_located(write):
    found = compare(write(state(whole())), write(changed("weight", "scalar", (), torch.inf)))
    assert (found.first.index, found.first.second) == ((), torch.inf)
    assert found.largest == torch.inf
    no_number = write(changed("weight", "scalar", (), torch.nan))
    assert (
        compare(write(state(whole())), no_number, tolerance=Tolerance(1.0, 1.0)).first.name
        == "scalar"
    )


def test_a_tolerance_is_relative_to_the_norm_of_the_tensor(write):
    """One element may be far off, and the tensor within the tolerance."""
    tensor = whole()["exp_avg"]["embed.weight"]
    off = 1e-3 * float(tensor.norm())
    value = float(tensor[2, 2]) + off
    ours, theirs = write(state(whole())), write(changed("exp_avg", "embed.weight", (2, 2), value))
    assert compare(ours, theirs, tolerance=Tolerance(0.0, 1.01e-3)).first is None
    beyond = compare(ours, theirs, tolerance=Tolerance(1.0, 0.99e-3))
    assert beyond.first.place == "exp_avg of embed.weight[2, 2]"
    assert beyond.largest == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "value"), [("counts", 1), ("running.mean", 0.2), ("mask", 0.0), ("half", 3.0)]
)
def test_buffers_of_every_kind_are_compared(write, name, value):
    buffers = {key: buffer.clone() for key, buffer in BUFFERS.items()}
    buffers[name].view(-1)[0] = value
    theirs = write(replace(state(whole()), buffers=buffers))
    for tolerance in (None, Tolerance(1e-3, 1.0)):
        found = compare(write(state(whole())), theirs, tolerance)
        assert (found.first.kind, found.first.name) == ("buffer", name)


def test_a_tensor_missing_on_one_side_or_of_another_shape_is_named(write):
    kinds = whole()
    del kinds["exp_avg"]["scalar"]
    found = compare(write(state(whole())), write(state(kinds)))
    assert found.first == comparing.Difference("shape", "exp_avg scalar", None, "[] float32", None)

    for tensors in kinds.values():
        if "odd|name" in tensors:
            tensors["odd|name"] = tensors["odd|name"][:6]
    found = compare(write(state(whole())), write(state(kinds)))
    assert (found.first.first, found.first.second) == ("[7] float32", "[6] float32")


@pytest.mark.parametrize(
    ("change", "position"),
    [
        ({"steps": {"embed.weight": 4.0}}, "steps of embed.weight"),
        ({"groups": [{"names": ["embed.weight"], "lr": 0.2}]}, "groups"),
        ({"loss_scale": {"scale": 1.0}}, "loss_scale of scale"),
    ],
)
def test_state_that_is_not_a_tensor_is_compared(write, change, position):
    found = compare(write(state(whole())), write(replace(state(whole()), **change)))
    assert (found.differing, found.first.place) == (0, position)


def test_an_option_of_a_group_is_named(write):
    groups = json.loads(json.dumps([{"names": ["scalar"], "weight_decay": 0.1}]))
    other = [{**groups[0], "weight_decay": 0.0}]
    ours, theirs = (write(replace(state(whole()), groups=g)) for g in (groups, other))
    for tolerance in (None, Tolerance(1e-3, 1e-3)):
        assert compare(ours, theirs, tolerance).first.place == "groups of 0.weight_decay"


def test_a_different_number_of_samples_is_named(write):
    found = compare(write(state(whole())), write(state(whole()), samples=641))
    assert found.first == comparing.Difference("samples", "", None, 640, 641)


def test_an_engines_own_options_and_loss_scale_are_within_a_tolerance(write):
    own = [{**group, "fused": True} for group in state(whole()).groups]
    theirs = write(replace(state(whole()), groups=own, loss_scale={}))
    ours = write(state(whole()))
    assert compare(ours, theirs, tolerance=Tolerance(1e-3, 1e-3)).first is None
    assert compare(ours, theirs).first.place == "groups of 0.fused"
