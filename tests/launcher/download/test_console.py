"""What is seen while data comes: bytes, rate and the time that is left."""

import io

import pytest

from launcher.download.console import Pace, console, words
from launcher.download.progress import Progress

MIB = 1 << 20


class Clock:
    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


@pytest.fixture
def clock():
    return Clock()


def at(done, total=100 * MIB, new=None, **more):
    return Progress("set.zip", done, total, done if new is None else new, **more)


def test_the_rate_is_that_of_this_attempt(clock):
    pace = Pace(clock)
    assert pace.rate(at(50 * MIB, new=MIB)) is None
    clock.s = 2
    assert pace.rate(at(60 * MIB, new=11 * MIB)) == 5 * MIB
    clock.s = 10
    assert pace.rate(at(61 * MIB, new=MIB)) is None  # another attempt
    clock.s = 11
    assert pace.rate(at(63 * MIB, new=3 * MIB)) == 2 * MIB
    assert pace.rate(at(3 * MIB, is_unpacking=True)) is None


def test_what_is_not_known_is_not_told():
    assert words(at(5 * MIB), 1 * MIB) == ["5.0 MiB of 100.0 MiB", "1.0 MiB/s", "1m35s left"]
    assert words(at(5 * MIB, None), None) == ["5.0 MiB so far"]
    assert words(at(5 * MIB, None, is_unpacking=True), 1 * MIB) == ["5.0 MiB unpacked", "1.0 MiB/s"]


def test_a_file_gets_a_line_now_and_then(clock):
    out = io.StringIO()
    with console(out, clock) as (tell, draw):
        tell("set: fetching")
        for second in range(31):
            clock.s = second
            draw(at(second * MIB))
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["set: fetching", "set.zip: 10.0 MiB of 100.0 MiB, 1.0 MiB/s, 1m30s left"]
    assert len(lines) == 4


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_that_is_taken_away(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out = Screen()
    with console(out, clock) as (tell, draw):
        draw(at(0))
        clock.s = 10
        draw(at(10 * MIB))
        tell("set: fetched")
    text = out.getvalue()
    assert "━" in text and "10.0 MiB of 100.0 MiB" in text and "1m30s left" in text
    assert "set: fetched\n" in text and text.endswith("\x1b[2K")
