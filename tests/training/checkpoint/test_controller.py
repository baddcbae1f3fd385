import pytest

from gearshift.training.callbacks.base import CallbackList
from gearshift.training.checkpoint.manifest import CheckpointError
from gearshift.training.checkpoint.writer import CheckpointController
from gearshift.training.settings import Save
from tests.training.shelf import Shelf
from tests.training.tiny import RecordingCallback, one_rank, run_tiny

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


def make_controller(saver, recorder, **settings):
    return CheckpointController(Save(**settings), saver, CallbackList([recorder]), 0)


def write(controller, step):
    controller.save(step, None, {}, True, None)


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


def test_a_failed_run_waits_for_its_write():
    class Breaks(RecordingCallback):
        def step(self, step):
            raise RuntimeError("a hook broke")

    shelf, abandoned = Shelf(), []
    shelf.abandon = lambda: abandoned.append(True)
    with pytest.raises(RuntimeError, match="a hook broke"):
        run_tiny(one_rank(), callback=Breaks(), shelf=shelf)
    assert abandoned == [True]
