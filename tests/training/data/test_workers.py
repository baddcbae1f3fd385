"""Loader workers and the data watchdog."""

import threading
from types import SimpleNamespace

import pytest
import torch

from training.data import workers
from training.data.workers import DataWatchdog, RequestLoader, WorkerDied
from training.settings import Loader


def test_a_dead_worker_is_reported_with_its_likely_cause():
    assert str(WorkerDied([-9, 3])) == (
        "a data-loader worker died by signal 9, with exit code 3; signal 9 usually means out of "
        "memory: lower loader.workers or loader.prefetch"
    )


def test_the_watchdog_gives_up_once_if_no_data_arrives():
    fired = threading.Event()
    messages = []

    def give_up(text):
        messages.append(text)
        fired.set()

    watch = DataWatchdog(0.4, give_up)
    with watch:
        assert fired.wait()
    watch.close()
    assert messages == ["waited 0.3 s for training data; see engine.timeout_s"]


def test_the_watchdog_fires_before_the_collective_timeout_of_other_ranks():
    for timeout_s in (0.4, 5.0, 600.0):
        watch = DataWatchdog(timeout_s, print)
        assert watch.limit_s <= timeout_s - min(2.0, timeout_s / 4)
        watch.close()


@pytest.mark.skipif(workers._START != "fork", reason="only forks share memory")
@pytest.mark.parametrize("count", [0, 1])
def test_a_forked_worker_gives_back_the_tensors_it_does_not_use(count):
    whole = torch.ones(1000)
    world = SimpleNamespace(device=torch.device("cpu"), rank=0)

    class Samples:
        def __getitem__(self, _request):
            return whole.untyped_storage().nbytes()

    settings = Loader(workers=count)
    loader = RequestLoader(Samples(), [0], world, settings, None, [whole[10:20]])
    assert list(loader) == [4000 if count == 0 else 0]
    loader.close()
    assert whole.sum() == 1000
