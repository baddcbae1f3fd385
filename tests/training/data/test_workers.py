"""Loader workers."""

import multiprocessing.process
import os
import signal
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import get_worker_info

from gearshift.training.callbacks.base import WorkerDied
from gearshift.training.data import workers
from gearshift.training.data.workers import RequestLoader
from gearshift.training.settings import Loader
from tests.training.conftest import two_ranks  # noqa: F401
from tests.training.shelf import Shelf
from tests.training.tiny import RecordingCallback, TinySplit, TinyTask, one_rank, run_tiny


class Doomed(TinySplit):
    """A worker is killed at its twelfth sample, or at the last one; or it is stopped there."""

    number, loaded = signal.SIGKILL, 0

    def sample(self, index, draws):
        self.loaded += 1
        if get_worker_info() is not None and (self.loaded == 12 or index == len(self) - 1 < 9):
            os.kill(os.getpid(), self.number)
        return super().sample(index, draws)


@dataclass
class DoomedTask(TinyTask):
    train: int = 80
    doomed: str = ""

    def data(self, split):
        length = self.train if split == "train" else self.val
        return Doomed(length) if split == self.doomed else TinySplit(length)


CHANGES = {"train": {"epochs": 1}, "loader": {"workers": 2}, "eval": {"every": 2}}


def run_doomed(world, engine, split):
    """The error of a run whose worker dies, the step that it saved, and the rest of the run."""
    torch.set_num_threads(1)
    multiprocessing.process.current_process()._config["daemon"] = False  # it may have workers
    shelf, callback = Shelf(), RecordingCallback()
    task = DoomedTask(doomed=split if world.rank == world.size - 1 or split == "val" else "")
    with pytest.raises(WorkerDied) as error:
        run_tiny(world, task, callback, engine=engine, shelf=shelf, **CHANGES)
    step = max(shelf.saved)
    rest = run_tiny(
        world,
        DoomedTask(),
        engine=engine,
        before=shelf.before(step),
        **CHANGES | {"loader": {"workers": 0}},
    )
    whole = run_tiny(world, DoomedTask(), engine=engine, **CHANGES | {"loader": {"workers": 0}})
    is_equal = all(torch.equal(rest.weights[name], whole.weights[name]) for name in whole.weights)
    ending = callback.outcomes[-1]
    return str(error.value), step, (ending.status, ending.steps), is_equal


@pytest.mark.parametrize(
    ("engine", "split"),
    [
        ("local", "train"),
        pytest.param("local", "val", marks=pytest.mark.slow),
        pytest.param("ddp", "train", marks=pytest.mark.slow),
        ("ddp", "val"),
    ],
)
def test_what_was_trained_is_saved_when_a_worker_dies(two_ranks, engine, split):  # noqa: F811
    if engine == "local":
        found = [run_doomed(one_rank(), engine, split)]
    else:
        found = two_ranks.run(run_doomed, engine, split)
        assert found[0] == found[1] and found[0][0].startswith("rank ")
    text, step, ending, is_equal = found[0]
    assert "died by signal 9" in text and "loader.workers" in text and " GB " in text
    assert ending == ("failed", step) and is_equal
    assert step == 2 if split == "val" else 1 <= step < 10


@pytest.mark.skipif(workers._START != "fork", reason="only forks share memory")
@pytest.mark.parametrize("count", [0, 1])
def test_a_forked_worker_gives_back_the_tensors_it_does_not_use(count):
    whole = torch.ones(1000)
    world = SimpleNamespace(device=torch.device("cpu"), rank=0)

    class Samples:
        def __getitem__(self, _request):
            return whole.untyped_storage().nbytes()

    settings = Loader(workers=count)
    loader = RequestLoader(Samples(), world, settings, [whole[10:20]])
    loader.begin([0], count)
    assert list(loader) == [4000 if count == 0 else 0]
    loader.close()
    assert whole.sum() == 1000
