"""Ranks wait for long work of others as long as these make progress."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from torch.distributed import HashStore

from engines import rank_0_first
from engines.base import World
from engines.rank_0_first import Turns
from tests.engines.pool import Pool


def in_order(world: World, log: Path) -> list[str]:
    """The lines that a rank sees when both have worked."""

    def work() -> None:
        if world.rank == 0:
            time.sleep(0.2)
        with log.open("a") as file:
            file.write(f"{world.rank}\n")

    world.rank_0_first(work)
    return log.read_text().split()


def test_rank_0_works_first_and_all_wait_for_all(worlds: dict[int, Pool], tmp_path: Path) -> None:
    for turn in range(2):  # twice in the same world
        found = worlds[2].run(in_order, tmp_path / f"log{turn}")
        assert found == [["0", "1"], ["0", "1"]]


def at_work(turn: Turns, use: str, seconds: float) -> threading.Thread:
    """A thread that works, or sleeps, in a turn."""

    def work() -> None:
        with turn.turn():
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                if use == "sleep":
                    time.sleep(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_rank_that_works_is_waited_for_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_0_first, "_BEAT_S", 0.2)
    turn = Turns(HashStore(), "data", timeout_s=1.0)
    thread = at_work(turn, "compute", 3.0)
    turn.wait(1)
    thread.join()


def test_a_rank_without_progress_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_0_first, "_work_done", lambda: (0.0, 0))
    turn = Turns(HashStore(), "data", timeout_s=0.5)
    with (
        turn.turn(),
        pytest.raises(
            TimeoutError, match=r"no rank made progress at the data for 0\.5 s, and 0 of"
        ),
    ):
        turn.wait(1)


def test_reading_files_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_0_first, "_BEAT_S", 0.1)
    read = iter(range(1000))
    monkeypatch.setattr(rank_0_first, "_work_done", lambda: (0.0, next(read)))
    turn = Turns(HashStore(), "data", timeout_s=1.0)
    thread = at_work(turn, "sleep", 2.0)
    turn.wait(1)
    thread.join()


def failing(world: World) -> None:
    def work() -> None:
        raise ValueError("no such data")

    if world.rank == 0:
        with pytest.raises(ValueError, match="no such data"):
            world.rank_0_first(work)


def test_an_error_of_rank_0_is_raised_there(worlds: dict[int, Pool]) -> None:
    worlds[2].run(failing)
