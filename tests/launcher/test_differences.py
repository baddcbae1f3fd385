"""Two states that differ by a single bit are distinguished, and the position is named."""

from dataclasses import replace

import pytest
import torch

from gearshift.launcher.saved_runs.differences import (
    Difference,
    TensorComparison,
    Tolerance,
    compare,
)
from gearshift.training.checkpoint.reader import open_checkpoint
from tests.training.checkpoint.states import BUFFERS, saving, state, whole
from tests.training.tiny import one_rank

TENSORS = 13
"""Five weights, four of each of the two slots."""


@pytest.fixture
def compared(tmp_path):
    """Compares saved states: `theirs` with `ours`, or with the usual one."""

    def saved(given, samples):
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        run.mkdir()
        saving(run, one_rank()).save(20, given, {"samples": samples}, periodic=True, score=None)
        return open_checkpoint(run / "last")

    def run(theirs, *tolerance, ours=None, samples=640):
        pair = saved(ours or state(whole()), 640), saved(theirs, samples)
        return compare(*pair, tolerance=Tolerance(*tolerance) if tolerance else None)

    return run


def changed(kind, name, index, value):
    """The usual state but for one element."""
    kinds = whole()
    kinds[kind][name][index] = value
    return state(kinds)


def with_changes(**changes):
    return replace(state(whole()), **changes)


def test_equal_states_are_identical_with_their_nan_but_for_the_number_of_samples(compared):
    expected = TensorComparison(TENSORS + len(BUFFERS), 0, None, 0.0, None)
    assert compared(state(whole())) == expected
    found = compared(state(whole()), samples=641)
    assert found.first == Difference("samples", "", None, 640, 641)


@pytest.mark.parametrize("kind", ["weight", "exp_avg_sq"])
def test_one_bit_is_found_by_kind_name_and_index(compared, kind):
    before = float(whole()[kind]["embed.weight"][7, 3])
    bit = float(torch.nextafter(torch.tensor(before), torch.tensor(9.0)))
    found = compared(changed(kind, "embed.weight", (7, 3), bit))
    assert found.differing == 1
    assert found.first == Difference(kind, "embed.weight", (7, 3), before, bit)
    assert found.first.place == f"{kind} of embed.weight[7, 3]"
    assert found.largest_in == f"{kind} of embed.weight"
    assert 0 < found.largest < 1e-6


def test_a_tolerance_is_relative_to_the_norm_of_the_tensor(compared):
    """One element may be far off, and the tensor within the tolerance."""
    tensor = whole()["exp_avg"]["embed.weight"]
    theirs = changed("exp_avg", "embed.weight", (2, 2), tensor[2, 2] + 1e-3 * tensor.norm())
    assert compared(theirs, 0.0, 1.01e-3).first is None
    beyond = compared(theirs, 1.0, 0.99e-3)
    assert beyond.first.place == "exp_avg of embed.weight[2, 2]"
    assert beyond.largest == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "value"), [("counts", 1), ("running.mean", 0.2), ("mask", 0.0), ("half", 3.0)]
)
def test_buffers_of_every_kind_are_compared_exactly(compared, name, value):
    buffers = {key: buffer.clone() for key, buffer in BUFFERS.items()}
    buffers[name].view(-1)[0] = value
    for tolerance in ((), (1e-3, 1.0)):
        found = compared(with_changes(buffers=buffers), *tolerance)
        assert (found.first.kind, found.first.name) == ("buffer", name)


def test_a_tensor_missing_on_one_side_or_of_another_shape_is_named(compared):
    kinds = whole()
    del kinds["exp_avg"]["scalar"]
    found = compared(state(kinds))
    assert found.first == Difference("shape", "exp_avg scalar", None, "[] torch.float32", None)
    for tensors in kinds.values():
        tensors["odd|name"] = tensors["odd|name"][:6]
    found = compared(state(kinds))
    assert (found.first.first, found.first.second) == ("[7] torch.float32", "[6] torch.float32")


@pytest.mark.parametrize(
    ("change", "position"),
    [
        ({"steps": {"embed.weight": 4.0}}, "steps of embed.weight"),
        ({"groups": [{"names": ["embed.weight"], "lr": 0.2}]}, "groups of 0.lr"),
        ({"loss_scale": {"scale": 1.0}}, "loss_scale of scale"),
    ],
)
def test_state_that_is_not_a_tensor_is_compared(compared, change, position):
    found = compared(with_changes(**change))
    assert (found.differing, found.first.place) == (0, position)


@pytest.mark.parametrize(("size", "is_noise"), [(2e-7, True), (4e-7, False)])
def test_within_a_tolerance_a_parameter_whose_gradients_are_rounding_does_not_count(
    compared, size, is_noise
):
    kinds = whole()
    for name, squares in kinds["exp_avg_sq"].items():
        squares.fill_(size**2 if name == "odd|name" else 1.0)
    other = {
        kind: {name: x.clone() for name, x in tensors.items()} for kind, tensors in kinds.items()
    }
    other["weight"]["odd|name"].add_(1.0)
    found = compared(state(other), 1e-4, 1e-2, ours=state(kinds))
    assert (list(found.noise), found.first is None) == (["weight of odd|name"] * is_noise, is_noise)
    assert compared(state(other), ours=state(kinds)).first is not None  # bit by bit it does
    other["weight"]["odd|name"][0] = torch.nan
    assert compared(state(other), 1e-4, 1e-2, ours=state(kinds)).first is not None
