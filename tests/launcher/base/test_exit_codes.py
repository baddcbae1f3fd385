"""A signal that ends a command gives the exit code that the shell and the scheduler expect."""

import signal

import pytest

from launcher.base.signals import Signals


@pytest.mark.parametrize(
    ("number", "code"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGUSR1", 75), ("SIGHUP", 75)]
)
def test_ctrl_c_is_130_and_every_other_signal_says_run_again(number, code):
    handler = Signals()
    handler.arrived = signal.Signals[number]
    assert handler.code == code
