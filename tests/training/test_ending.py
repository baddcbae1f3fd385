from __future__ import annotations

import pytest

from training.callbacks.base import Ask
from training.ending import asked_for


@pytest.mark.parametrize(
    ("asked", "status", "code", "is_resumable"),
    [
        (Ask.STOP, "completed", 0, False),
        (Ask.SIGNAL, "stopped", 75, True),
        (Ask.PRESSURE, "stopped", 75, True),
        (Ask.INTERRUPT, "stopped", 130, True),
        (Ask.SIGNAL | Ask.INTERRUPT, "stopped", 130, True),
        (Ask.STOP | Ask.SIGNAL, "stopped", 75, True),
    ],
)
def test_each_ask_has_its_exit_code(asked, status, code, is_resumable):
    found = asked_for(asked)
    assert (found.status, found.exit_code, found.is_resumable) == (status, code, is_resumable)


@pytest.mark.parametrize("asked", [Ask.NOTHING, Ask.SAVE, Ask.EVALUATE | Ask.RELIEF])
def test_other_asks_end_nothing(asked):
    assert asked_for(asked) is None
