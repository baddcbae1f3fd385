import torch

from tests.training.tiny import TinySplit, TinyTask, one_rank
from training.data.fingerprint import fingerprint
from training.data.samples import Samples


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
