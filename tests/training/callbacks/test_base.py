from pathlib import Path

import pytest

from gearshift.training.callbacks.base import Action, Callback, CallbackList
from gearshift.training.storage import StorageError
from tests.training.facts import outcome, step
from tests.training.tiny import RecordingCallback

OUTCOME = outcome()


class Broken(Callback):
    def end(self, outcome):
        raise OSError("the disk is full")


def test_actions_of_all_callbacks_are_joined():
    first = RecordingCallback({2: Action.SAVE})
    last = RecordingCallback({2: Action.STOP, 3: Action.SAVE})
    found = [CallbackList([first, Callback(), last]).step(step(n)) for n in (1, 2, 3)]
    assert found == [Action.NOTHING, Action.SAVE | Action.STOP, Action.SAVE]


def test_the_end_reaches_every_callback_even_if_one_fails():
    first, last = RecordingCallback(), RecordingCallback()
    with pytest.raises(OSError, match="disk is full"):
        CallbackList([first, Broken(), last]).end(OUTCOME)
    assert first.outcomes == last.outcomes == [OUTCOME]


def test_a_full_disk_at_the_end_hides_no_earlier_error():
    class Full(Callback):
        def end(self, outcome):
            raise StorageError(Path("log.txt"), OSError(28, "No space left on device"))

    with pytest.raises(StorageError):
        CallbackList([Full()]).end(OUTCOME)
    last = RecordingCallback()
    CallbackList([Full(), Full(), last]).end(outcome(status="failed"))
    assert len(last.outcomes) == 1
