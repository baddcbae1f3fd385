"""Signals that are answered otherwise for a while."""

import os
import signal

import pytest

from launcher.run.signals import answered, held_back


def test_a_handler_is_put_back():
    before = signal.getsignal(signal.SIGUSR1)
    seen = []
    with answered([signal.SIGUSR1], lambda number, frame: seen.append(number)):
        signal.raise_signal(signal.SIGUSR1)
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_signal_that_is_held_back_is_answered_on_leaving():
    lines = []
    with pytest.raises(KeyboardInterrupt), held_back(["SIGINT", "SIGTERM"]):
        os.kill(os.getpid(), signal.SIGINT)
        lines.append("came to its end")
    assert lines == ["came to its end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
