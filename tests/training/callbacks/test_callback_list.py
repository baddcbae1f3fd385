import pytest

from tests.training.tiny import RecordingCallback
from training.callbacks.base import Action, Callback, Outcome, Step
from training.callbacks.callback_list import CallbackList
from training.stop_reason import FINISHED

OUTCOME = Outcome(FINISHED.status, FINISHED.reason, 0, 1, 1.0, 1.0, None, None)


class Broken(Callback):
    def end(self, outcome):
        raise OSError("the disk is full")


def step(number):
    return Step(number, None, {}, 1, None, 0.1, False, None, 0.0)


def test_actions_of_all_callbacks_are_joined():
    callbacks = CallbackList(
        [
            RecordingCallback({2: Action.SAVE}),
            Callback(),
            RecordingCallback({2: Action.STOP, 3: Action.SAVE}),
        ]
    )
    assert [callbacks.step(step(n)) for n in (1, 2, 3)] == [
        Action.NOTHING,
        Action.SAVE | Action.STOP,
        Action.SAVE,
    ]


def test_the_end_reaches_every_callback_even_if_one_fails():
    first, last = RecordingCallback(), RecordingCallback()
    with pytest.raises(OSError, match="disk is full"):
        CallbackList([first, Broken(), last]).end(OUTCOME)
    assert first.outcomes == last.outcomes == [OUTCOME]
