"""Signal handlers: deferred, and restored."""

import os
import signal

import pytest

from launcher.base.signals import deferred, handling


def test_a_signal_handler_is_restored():
    before = signal.getsignal(signal.SIGUSR1)
    seen = []
    with handling([signal.SIGUSR1], lambda number, frame: seen.append(number)):
        signal.raise_signal(signal.SIGUSR1)
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_deferred_signal_is_handled_at_the_end():
    lines = []
    with pytest.raises(KeyboardInterrupt), deferred(["SIGINT", "SIGTERM"]):
        os.kill(os.getpid(), signal.SIGINT)
        lines.append("came to its end")
    assert lines == ["came to its end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
