from __future__ import annotations

import pytest

from training.callbacks.base import Action
from training.stop_reason import requested


@pytest.mark.parametrize(
    ("asked", "status", "code", "is_resumable"),
    [
        (Action.STOP, "completed", 0, False),
        (Action.SIGNAL, "stopped", 75, True),
        (Action.LIMIT_EXCEEDED, "stopped", 75, True),
        (Action.INTERRUPT, "stopped", 130, True),
        (Action.SIGNAL | Action.INTERRUPT, "stopped", 130, True),
        (Action.STOP | Action.SIGNAL, "stopped", 75, True),
    ],
)
def test_each_ask_has_its_exit_code(asked, status, code, is_resumable):
    found = requested(asked)
    assert (found.status, found.exit_code, found.is_resumable) == (status, code, is_resumable)


@pytest.mark.parametrize(
    "asked", [Action.NOTHING, Action.SAVE, Action.EVALUATE | Action.FREE_MEMORY]
)
def test_other_actions_end_nothing(asked):
    assert requested(asked) is None
