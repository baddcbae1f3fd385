import hashlib

import pytest
import torch

from gearshift.engines.base import Piece, State
from gearshift.training.data.feature_cache import weights_digest
from gearshift.training.data.samples import Samples, add, fingerprint
from tests.training.tiny import TinySplit, TinyTask, one_rank


def of(split, task=None):
    return fingerprint(Samples(task or TinyTask(), split, 0), one_rank())


class Moved(TinySplit):
    """The same samples but for the last one."""

    def sample(self, index, draws):
        return super().sample(0 if index == len(self) - 1 else index, draws)


def test_data_of_another_content_has_another_fingerprint():
    assert of(TinySplit(50)) != of(TinySplit(50, noise=0.2))
    assert of(TinySplit(50)) != of(TinySplit(50), TinyTask(dtype=torch.float32))
    assert of(TinySplit(50)) != of(Moved(50))


def test_a_large_dataset_is_not_read():
    class Counted(TinySplit):
        reads = 0

        def sample(self, index, draws):
            Counted.reads += 1
            return super().sample(index, draws)

    of(Counted(10**9))
    assert Counted.reads == 16


def test_every_rank_has_the_fingerprint(two_ranks):
    assert two_ranks.run(_on_a_rank) == [of(TinySplit(50))] * 2


def _on_a_rank(world):
    return fingerprint(Samples(TinyTask(), TinySplit(50), 0), world)


def digest_of(value):
    digest = hashlib.sha256()
    add(digest, value)
    return digest.hexdigest()


def test_tensors_of_equal_bytes_and_another_form_are_distinguished():
    zeros = torch.zeros(6)
    others = [zeros.view(2, 3), zeros.view(torch.int32), zeros.view(torch.int32).view(3, 2)]
    assert len({digest_of(tensor) for tensor in (zeros, *others)}) == 4
    rows = torch.arange(6.0).view(2, 3)
    assert digest_of(rows) == digest_of(rows.t().contiguous().t())


WEIGHTS = {"a.x": torch.arange(10.0), "a.y": torch.arange(10.0).flip(0), "b.x": torch.ones(3)}


def digest_of_weights(weights, cuts=(0,), buffers=None):
    """Of the part "a", whose tensors are held in several intervals."""
    pieces = []
    for name, flat in weights.items():
        for start, stop in zip(cuts, (*cuts[1:], len(flat)), strict=True):
            pieces.append(Piece("weight", name, start, flat[start:stop]))
    pieces.append(Piece("exp_avg", "a.x", 0, torch.rand(10)))
    return weights_digest(State({}, pieces, buffers or {}, {}, [], {}), "a", one_rank())


def test_a_digest_of_weights_is_the_same_for_any_sharding_and_for_other_parts():
    whole = digest_of_weights(WEIGHTS)
    assert digest_of_weights(WEIGHTS, (0, 3)) == digest_of_weights(WEIGHTS, (0, 1, 2)) == whole
    assert digest_of_weights({**WEIGHTS, "b.x": torch.zeros(3)}) == whole


@pytest.mark.parametrize(
    "change",
    [
        {"a.x": WEIGHTS["a.y"], "a.y": WEIGHTS["a.x"]},
        {"a.x": WEIGHTS["a.x"].roll(1)},
        {"a.x": torch.tensor([2.0**-149, *range(1, 10)])},
        {"a.x": torch.tensor([-0.0, *range(1, 10)])},
    ],
    ids=["swapped", "moved", "one bit", "the sign of zero"],
)
def test_weights_that_are_swapped_moved_or_one_bit_apart_have_another_digest(change):
    assert digest_of_weights({**WEIGHTS, **change}) != digest_of_weights(WEIGHTS)
    buffers = [{"a.n": torch.ones(1)}, {"a.n": torch.zeros(1)}, {"b.n": torch.ones(1)}]
    assert len({digest_of_weights(WEIGHTS, buffers=each) for each in buffers}) == 3
