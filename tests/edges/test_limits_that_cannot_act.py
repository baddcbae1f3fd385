"""A limit that the user set, of something this machine does not report, is said at the start."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.training.resources.test_limits import FULL
from training.resources.limits import LimitEnforcer
from training.settings import Limits

NOTHING = replace(FULL, ram=1.0, disk=1.0, swap=None, gpu=None, temperature=None)


def warnings(chosen):
    events = []
    monitor = SimpleNamespace(read=lambda: NOTHING, start=lambda: None)
    enforcer = LimitEnforcer(Limits(), monitor, lambda *event: events.append(event), chosen)
    enforcer.start(None)
    return [facts["text"] for kind, facts in events if kind == "warning"]


@pytest.mark.parametrize("name", ["swap", "gpu", "temperature"])
def test_a_chosen_limit_without_a_reading_is_a_warning(name):
    assert warnings([name]) == [f"limits.{name} cannot act: this machine reports no {name}"]


def test_defaults_and_limits_that_act_are_not_mentioned():
    assert warnings([]) == warnings(["ram", "disk", "cpu"]) == []
