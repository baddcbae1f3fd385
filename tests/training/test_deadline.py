from __future__ import annotations

from tests.training.facts import step
from training.callbacks.base import Ask
from training.deadline import Deadline


def test_it_asks_to_save_and_end_once_its_time_has_come_and_tells_so_once():
    told, times = [], iter([4.0, 4.9, 5.0, 6.0])
    hook = Deadline(5.0, lambda kind, facts: told.append(kind), lambda: next(times))
    asked = [hook.step(step(n)) for n in range(4)]
    assert asked == [Ask.NOTHING, Ask.NOTHING, Ask.SIGNAL | Ask.SAVE, Ask.SIGNAL | Ask.SAVE]
    assert told == ["deadline"]
