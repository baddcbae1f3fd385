from __future__ import annotations

from tests.training.facts import step
from training.callbacks.base import Action
from training.deadline import Deadline


def test_it_asks_to_save_and_end_once_its_time_has_come_and_tells_so_once():
    told, times = [], iter([4.0, 4.9, 5.0, 6.0])
    callback = Deadline(5.0, lambda kind, facts: told.append(kind), lambda: next(times))
    asked = [callback.step(step(n)) for n in range(4)]
    assert asked == [
        Action.NOTHING,
        Action.NOTHING,
        Action.SIGNAL | Action.SAVE,
        Action.SIGNAL | Action.SAVE,
    ]
    assert told == ["deadline"]
