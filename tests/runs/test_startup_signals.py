"""A signal during the start of a run ends it with its code, and leaves nothing behind."""

import signal

import pytest

from benchmarks.startup_signals import OVER_S, interrupted

COUNT = 10


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_of_the_start_ends_the_run(number):
    for moment in range(COUNT // 2):
        at_s = OVER_S * (moment + 0.5) / (COUNT // 2)
        end = interrupted(number, 1 + moment % 2, at_s)
        assert end.problem is None, f"{end.signal} after {end.at_s} s: {end.problem}"
