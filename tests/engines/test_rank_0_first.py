"""Ranks wait for long work of others as long as these make progress."""

import threading
from itertools import count

import pytest
from torch.distributed import HashStore

from engines import rank_0_first
from engines.rank_0_first import Turns
from tests.waiting import until


def in_order(world, folder):
    """The lines that a rank sees when both have worked; rank 0 works once rank 1 is there."""
    log, is_there = folder / "log", folder / "rank 1 is there"

    def work():
        if world.rank == 0:
            until(is_there.exists)
        with log.open("a") as file:
            file.write(f"{world.rank}\n")

    if world.rank == 1:
        is_there.touch()
    world.rank_0_first(work)
    return log.read_text().split()


def test_rank_0_works_first_and_all_wait_for_all(worlds, tmp_path):
    for name in "ab":  # twice in the same world
        (tmp_path / name).mkdir()
        assert worlds[2].run(in_order, tmp_path / name) == [["0", "1"], ["0", "1"]]


class Clock:
    """Time that passes in pauses only: 0.9 s in each, after a sign of progress or the end."""

    def __init__(self, store, expects_beats):
        self.store, self.expects_beats, self.seconds, self.beats = store, expects_beats, 0.0, 0

    def count(self, what):
        return self.store.add(f"data/{what}", 0)

    def monotonic(self):
        return self.seconds

    def sleep(self, _pause):
        if self.expects_beats:
            until(lambda: self.count("beats") > self.beats or self.count("done"))
            self.beats = self.count("beats")
        self.seconds += 0.9


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(rank_0_first, "_BEAT_S", 0.001)
    return HashStore()


@pytest.mark.parametrize("work_done", [lambda n: (float(n), 0), lambda n: (0.0, n)])
def test_a_rank_that_computes_or_reads_is_waited_for_without_a_limit(store, monkeypatch, work_done):
    clock, numbers, turn = Clock(store, True), count(), Turns(store, "data", timeout_s=1.0)
    monkeypatch.setattr(rank_0_first, "time", clock)
    monkeypatch.setattr(rank_0_first, "_work_done", lambda: work_done(next(numbers)))

    def work():
        with turn.turn():
            until(lambda: clock.seconds > 10)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    turn.wait(1)
    thread.join()


def test_a_rank_without_progress_is_an_error(store, monkeypatch):
    monkeypatch.setattr(rank_0_first, "time", Clock(store, False))
    monkeypatch.setattr(rank_0_first, "_work_done", lambda: (0.0, 0))
    turn = Turns(store, "data", timeout_s=0.5)
    message = r"no rank made progress at the data for 0\.5 s, and 0 of"
    with turn.turn(), pytest.raises(TimeoutError, match=message):
        turn.wait(1)


def test_computing_counts_as_work():
    before = rank_0_first._work_done()
    until(lambda: sum(range(10**6)) and rank_0_first._work_done()[0] > before[0])


def failing(world):
    def work():
        raise ValueError("no such data")

    if world.rank == 0:
        with pytest.raises(ValueError, match="no such data"):
            world.rank_0_first(work)


def test_an_error_of_rank_0_is_raised_there(worlds):
    worlds[2].run(failing)
