"""Which checkpoints stay after many saves."""

from __future__ import annotations

import os
from pathlib import Path

from engines.world import ProcessWorld
from tests.training.checkpoint.states import state, whole
from training.checkpoint.manifest import Verdict
from training.checkpoint.reader import open_checkpoint
from training.checkpoint.retention import Keep
from training.checkpoint.saver import Saver


def steps(run: Path) -> list[int]:
    return sorted(int(name.removeprefix("step-")) for name in os.listdir(run / "checkpoints"))


def saving(run: Path, world: ProcessWorld, last: int, best: int = 1, every: int | None = None):
    return Saver(run, world, "local", Keep(last, best, every), in_background=False)


def save(saver: Saver, step: int, loss: float | None = None, periodic: bool = True) -> None:
    verdict = None if loss is None else Verdict("loss", loss, "min")
    saver.save(step, state(whole(step)), {"samples": step}, periodic, verdict)


def test_the_newest_periodic_ones_stay_and_the_best_whatever_its_age(
    tmp_path: Path, alone: ProcessWorld
):
    saver = saving(tmp_path, alone, last=2)
    for step in range(1, 7):
        save(saver, step, loss=1.0 if step == 2 else None)

    assert steps(tmp_path) == [2, 5, 6]
    assert open_checkpoint(tmp_path / "best").manifest.step == 2
    assert open_checkpoint(tmp_path / "last").manifest.step == 6


def test_a_best_that_is_best_no_more_goes_unless_it_was_periodic(
    tmp_path: Path, alone: ProcessWorld
):
    saver = saving(tmp_path, alone, last=2)
    save(saver, 1, loss=3.0)
    save(saver, 2, loss=2.0, periodic=False)
    save(saver, 3, loss=1.0, periodic=False)

    assert steps(tmp_path) == [1, 3]


def test_the_last_one_takes_no_place_from_the_periodic_ones(tmp_path: Path, alone: ProcessWorld):
    saver = saving(tmp_path, alone, last=1)
    save(saver, 4)
    save(saver, 5, periodic=False)

    assert steps(tmp_path) == [4, 5]


def test_a_new_process_counts_the_checkpoints_of_the_old_one(tmp_path: Path, alone: ProcessWorld):
    for step in (1, 2, 3):
        save(saving(tmp_path, alone, last=2), step)

    assert steps(tmp_path) == [2, 3]


def test_the_links_hold_when_the_run_folder_moves(tmp_path: Path, alone: ProcessWorld):
    run = tmp_path / "here"
    run.mkdir()
    save(saving(run, alone, last=1), 4, loss=1.0)

    moved = run.rename(tmp_path / "there")
    assert os.readlink(moved / "best") == os.path.join("checkpoints", "step-00000004")
    assert open_checkpoint(moved / "last").manifest.step == 4


def test_a_damaged_checkpoint_is_neither_counted_nor_deleted(tmp_path: Path, alone: ProcessWorld):
    saver = saving(tmp_path, alone, last=1)
    save(saver, 1)
    (tmp_path / "checkpoints" / "step-00000001" / "state.json").unlink()
    save(saver, 2)
    save(saver, 3)

    assert steps(tmp_path) == [1, 3]
