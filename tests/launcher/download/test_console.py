"""Progress of downloads: bytes, rate and ETA."""

import io

import pytest

from launcher.download.console import Progress, TransferRate, console, describe

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


def test_the_rate_is_of_the_current_attempt(clock):
    rate = TransferRate(clock)
    assert rate.update(at(50 * MIB, new=MIB)) is None
    clock.s = 2
    assert rate.update(at(60 * MIB, new=11 * MIB)) == 5 * MIB
    clock.s = 10
    assert rate.update(at(61 * MIB, new=MIB)) is None  # another attempt
    clock.s = 11
    assert rate.update(at(63 * MIB, new=3 * MIB)) == 2 * MIB
    assert rate.update(at(3 * MIB, is_unpacking=True)) is None


def test_unknown_values_are_left_out():
    assert describe(at(5 * MIB), 1 * MIB) == ["5.0 MiB of 100.0 MiB", "1.0 MiB/s", "ETA 1m35s"]
    assert describe(at(5 * MIB, None), None) == ["5.0 MiB so far"]
    assert describe(at(5 * MIB, None, is_unpacking=True), 1 * MIB) == [
        "5.0 MiB unpacked",
        "1.0 MiB/s",
    ]


def test_a_file_gets_a_line_every_ten_seconds(clock):
    out = io.StringIO()
    with console(out, clock) as (print, draw):
        print("set: downloading")
        for second in range(31):
            clock.s = second
            draw(at(second * MIB))
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["set: downloading", "set.zip: 10.0 MiB of 100.0 MiB, 1.0 MiB/s, ETA 1m30s"]
    assert len(lines) == 4


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_that_is_removed_at_the_end(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out = Screen()
    with console(out, clock) as (print, draw):
        draw(at(0))
        clock.s = 10
        draw(at(10 * MIB))
        print("set: downloaded")
    text = out.getvalue()
    assert "━" in text and "10.0 MiB of 100.0 MiB" in text and "ETA 1m30s" in text
    assert "set: downloaded\n" in text and text.endswith("\x1b[2K")
