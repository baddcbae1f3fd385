"""Signal handlers: deferred, and restored."""

import os
import signal
import subprocess
import sys

import pytest

from launcher.base.signals import deferred, handling
from training.callbacks.preemption import ENDING, heeded


def test_a_signal_handler_is_restored():
    before = signal.getsignal(signal.SIGUSR1)
    seen = []
    with handling([signal.SIGUSR1], lambda number, frame: seen.append(number)):
        signal.raise_signal(signal.SIGUSR1)
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_deferred_signal_is_handled_at_the_end():
    lines = []
    with pytest.raises(KeyboardInterrupt), deferred():
        os.kill(os.getpid(), signal.SIGINT)
        lines.append("came to its end")
    assert lines == ["came to its end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_hangup_that_nohup_ignores_is_left_ignored(hangups, handler):
    signal.signal(signal.SIGHUP, handler)
    is_heeded = handler is signal.SIG_DFL
    assert heeded() == [n for n in ENDING if is_heeded or n is not signal.SIGHUP]
    with deferred():
        assert (signal.getsignal(signal.SIGHUP) is handler) != is_heeded


WITHOUT = """
import signal
import subprocess
import sys
del signal.SIGHUP, signal.SIGUSR1
import launcher.__main__, launcher.compare.runner, launcher.run.supervisor, launcher.run.rank
import launcher.continual.stop_conditions, launcher.saved_runs.rerun, training.trackers.follow
from training.callbacks.preemption import ENDING, heeded
assert list(ENDING) == heeded() == [signal.SIGINT, signal.SIGTERM]
"""


def test_a_system_without_some_of_the_signals_has_the_others():
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)
