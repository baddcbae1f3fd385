from pathlib import Path

import pytest

from tests.training.logging.clock import Clock
from tests.training.shelf import Shelf
from tests.training.tiny import RecordingCallback, one_rank, run_tiny
from training.callbacks.callback_list import CallbackList
from training.checkpoint.controller import CheckpointController
from training.checkpoint.manifest import CheckpointError
from training.settings import Save

FULL = "the checkpoint of step 3 cannot be saved: no space left on device"


class Background:
    """A saver with writes that the test ends."""

    def __init__(self):
        self.calls = []
        self.ends = None

    @property
    def is_settled(self):
        return self.ends is not None

    def save(self, step, *rest):
        self.calls.append(f"save {step}")

    def wait(self):
        self.calls.append("wait")
        ends, self.ends = self.ends, None
        if isinstance(ends, CheckpointError):
            raise ends
        return ends

    def abandon(self):
        self.calls.append("abandon")


def make_controller(saver, recorder, *clock, **settings):
    return CheckpointController(Save(**settings), saver, CallbackList([recorder]), 0, *clock)


def write(controller, step):
    controller.save(step, None, {}, periodic=True, score=None)


def test_a_save_is_reported_once_it_is_on_disk_with_the_time_that_training_waited():
    saver, recorder, reported, clock = Background(), RecordingCallback(), [], Clock()
    recorder.saved = lambda folder, step, seconds: reported.append((step, seconds))
    controller = make_controller(saver, recorder, clock)

    def takes(seconds):
        clock.seconds += seconds

    saver.save = lambda *_: takes(2.0)
    write(controller, 3)
    takes(50.0)  # training while it is written
    assert (controller.saved_step, reported, controller.has_finished_write) == (3, [], False)
    saver.ends = Path("checkpoints/step-00000003")
    assert controller.has_finished_write
    controller.wait()
    saver.save = lambda *_: takes(3.0)
    write(controller, 4)
    saver.wait = lambda: takes(4.0) or Path("checkpoints/step-00000004")
    controller.wait()
    assert reported == [(3, 2.0), (4, 3.0 + 4.0)]


def test_a_save_that_failed_in_the_background_ends_the_run_or_is_a_warning():
    saver, recorder = Background(), RecordingCallback()
    required = make_controller(saver, recorder)
    write(required, 3)
    saver.ends = CheckpointError(FULL)
    with pytest.raises(CheckpointError, match="no space left"):
        required.wait()
    optional = make_controller(saver, recorder, required=False)
    write(optional, 3)
    saver.ends = CheckpointError(FULL)
    write(optional, 4)
    assert recorder.events == [
        ("warning", {"text": f"{FULL}; training continues because save.required is off"})
    ]
    assert saver.calls[-2:] == ["wait", "save 4"]


def test_the_loop_reports_a_save_at_a_later_step_and_at_the_end():
    run = run_tiny(one_rank(), save={"every": 1, "async": True, "keep_best": 0})
    log = run.recorder.calls
    # A save to the shelf completes at once; the loop checks for it before the next step.
    assert log.index("step 1") < log.index("saved 1") < log.index("step 2")
    assert [line for line in log if line.startswith("saved")] == ["saved 1", "saved 2", "saved 3"]
    assert log.index("saved 3") < log.index("end")


def test_a_failed_run_waits_for_its_write():
    class Breaks(RecordingCallback):
        def step(self, step):
            raise RuntimeError("a hook broke")

    shelf, abandoned = Shelf(), []
    shelf.abandon = lambda: abandoned.append(True)
    with pytest.raises(RuntimeError, match="a hook broke"):
        run_tiny(one_rank(), callback=Breaks(), shelf=shelf)
    assert abandoned == [True]
