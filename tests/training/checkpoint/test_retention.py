"""Which checkpoints stay after many saves."""

from __future__ import annotations

import os
from pathlib import Path

from engines.world import ProcessWorld
from tests.training.checkpoint.states import state, whole
from training.checkpoint.reader import open_checkpoint
from training.checkpoint.saver import Saver


def steps(run: Path) -> list[int]:
    return sorted(int(name.removeprefix("step-")) for name in os.listdir(run / "checkpoints"))


def save(saver: Saver, step: int, is_best: bool = False, periodic: bool = True) -> None:
    saver.save(step, state(whole(step)), {"samples": step}, is_best, periodic)


def test_the_newest_periodic_ones_stay_and_the_best_whatever_its_age(
    tmp_path: Path, alone: ProcessWorld
):
    saver = Saver(tmp_path, alone, "local", keep_last=2)
    for step in range(1, 7):
        save(saver, step, is_best=step == 2)

    assert steps(tmp_path) == [2, 5, 6]
    assert open_checkpoint(tmp_path / "best").manifest.step == 2
    assert open_checkpoint(tmp_path / "last").manifest.step == 6


def test_a_best_that_is_best_no_more_goes_unless_it_was_periodic(
    tmp_path: Path, alone: ProcessWorld
):
    saver = Saver(tmp_path, alone, "local", keep_last=2)
    save(saver, 1, is_best=True, periodic=True)
    save(saver, 2, is_best=True, periodic=False)
    save(saver, 3, is_best=True, periodic=False)

    assert steps(tmp_path) == [1, 3]


def test_the_last_one_takes_no_place_from_the_periodic_ones(tmp_path: Path, alone: ProcessWorld):
    saver = Saver(tmp_path, alone, "local", keep_last=1)
    save(saver, 4)
    save(saver, 5, periodic=False)

    assert steps(tmp_path) == [4, 5]


def test_a_new_process_counts_the_checkpoints_of_the_old_one(tmp_path: Path, alone: ProcessWorld):
    for step in (1, 2, 3):
        save(Saver(tmp_path, alone, "local", keep_last=2), step)

    assert steps(tmp_path) == [2, 3]


def test_the_links_hold_when_the_run_folder_moves(tmp_path: Path, alone: ProcessWorld):
    run = tmp_path / "here"
    run.mkdir()
    save(Saver(run, alone, "local", keep_last=1), 4, is_best=True)

    moved = run.rename(tmp_path / "there")
    assert os.readlink(moved / "best") == os.path.join("checkpoints", "step-00000004")
    assert open_checkpoint(moved / "last").manifest.step == 4


def test_a_damaged_checkpoint_is_neither_counted_nor_deleted(tmp_path: Path, alone: ProcessWorld):
    saver = Saver(tmp_path, alone, "local", keep_last=1)
    save(saver, 1)
    (tmp_path / "checkpoints" / "step-00000001" / "state.json").unlink()
    save(saver, 2)
    save(saver, 3)

    assert steps(tmp_path) == [1, 3]
