from __future__ import annotations

import pytest

from training.callbacks.base import Action
from training.stop_reason import requested


@pytest.mark.parametrize(
    ("actions", "status", "code", "is_resumable"),
    [
        (Action.STOP, "completed", 0, False),
        (Action.SIGNAL, "stopped", 75, True),
        (Action.LIMIT_EXCEEDED, "stopped", 75, True),
        (Action.INTERRUPT, "stopped", 130, True),
        (Action.SIGNAL | Action.INTERRUPT, "stopped", 130, True),
        (Action.STOP | Action.SIGNAL, "stopped", 75, True),
    ],
)
def test_each_request_has_its_exit_code(actions, status, code, is_resumable):
    found = requested(actions)
    assert (found.status, found.exit_code, found.is_resumable) == (status, code, is_resumable)
