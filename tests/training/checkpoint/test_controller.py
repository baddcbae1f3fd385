from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.shelf import Shelf
from tests.training.tiny import Listener, one_rank, run_tiny
from training.callbacks.callback_list import CallbackList
from training.checkpoint.controller import CheckpointController
from training.checkpoint.manifest import CheckpointError
from training.settings import Save

FULL = "the checkpoint of step 3 cannot be saved: no space left on device"


class Background:
    """A saver whose writes end when it is told so."""

    def __init__(self):
        self.calls: list[str] = []
        self.ends: Path | CheckpointError | None = None

    @property
    def is_settled(self) -> bool:
        return self.ends is not None

    def save(self, step, *rest) -> None:
        self.calls.append(f"save {step}")

    def wait(self) -> Path | None:
        self.calls.append("wait")
        ends, self.ends = self.ends, None
        if isinstance(ends, CheckpointError):
            raise ends
        return ends

    def abandon(self) -> None:
        self.calls.append("abandon")


@pytest.fixture
def saver():
    return Background()


@pytest.fixture
def listener():
    return Listener()


def saves(saver, listener, **settings) -> CheckpointController:
    return CheckpointController(Save(**settings), saver, CallbackList([listener]), 0)


def write(saves: CheckpointController, step: int) -> None:
    saves.save(step, None, {}, periodic=True, score=None)


def test_a_save_is_reported_once_it_is_on_disk(saver, listener):
    kept = saves(saver, listener)
    write(kept, 3)
    assert (kept.saved_step, listener.saves, kept.has_finished_write) == (3, [], False)
    saver.ends = Path("checkpoints/step-00000003")
    assert kept.has_finished_write
    kept.wait()
    assert listener.saves == [3]


def test_a_second_save_waits_for_the_first(saver, listener):
    kept = saves(saver, listener)
    write(kept, 3)
    saver.ends = Path("checkpoints/step-00000003")
    write(kept, 4)
    assert saver.calls == ["wait", "save 3", "wait", "save 4"]
    assert listener.saves == [3]


def test_in_the_foreground_it_is_on_disk_when_the_call_returns(saver, listener):
    kept = saves(saver, listener, **{"async": False})
    saver.save = lambda *_: setattr(saver, "ends", Path("checkpoints/step-00000003"))
    write(kept, 3)
    assert listener.saves == [3]


def test_a_save_that_failed_in_the_background_ends_the_run(saver, listener):
    kept = saves(saver, listener)
    write(kept, 3)
    saver.ends = CheckpointError(FULL)
    with pytest.raises(CheckpointError, match="no space left"):
        kept.wait()


def test_it_is_a_warning_where_the_run_can_do_without(saver, listener):
    kept = saves(saver, listener, required=False)
    write(kept, 3)
    saver.ends = CheckpointError(FULL)
    write(kept, 4)
    assert listener.events == [
        ("warning", {"text": f"{FULL}; training continues because save.required is off"})
    ]
    assert saver.calls[-1] == "save 4"


def test_the_loop_takes_note_at_a_later_step_and_at_the_end():
    run = run_tiny(one_rank(), save={"every": 1, "async": True, "keep_best": 0})
    told = run.listener.told
    # On the shelf a save is whole at once; the loop looks for it before the next step.
    assert told.index("step 1") < told.index("saved 1") < told.index("step 2")
    assert [line for line in told if line.startswith("saved")] == ["saved 1", "saved 2", "saved 3"]
    assert told.index("saved 3") < told.index("end")


def test_a_failed_run_lets_the_write_end():
    class Breaks(Listener):
        def step(self, step):
            raise RuntimeError("a hook broke")

    abandoned = []

    class Kept(Shelf):
        def abandon(self) -> None:
            abandoned.append(True)

    with pytest.raises(RuntimeError, match="a hook broke"):
        run_tiny(one_rank(), callback=Breaks(), shelf=Kept())
    assert abandoned == [True]
