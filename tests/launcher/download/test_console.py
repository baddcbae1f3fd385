"""Progress of downloads: bytes, rate and ETA."""

import io

import pytest

from launcher.download.console import DownloadProgress, console

MIB = 1 << 20


class Clock:
    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


@pytest.fixture
def clock():
    return Clock()


def at(done, total=100 * MIB, **more):
    return DownloadProgress("set.zip", done, total, **more)


def lines(clock, *drawn):
    """The lines of progress drawn ten seconds apart."""
    out = io.StringIO()
    with console(out, clock) as (_, draw):
        for progress in drawn:
            draw(progress)
            clock.s += 10
    return out.getvalue().splitlines()


def test_the_rate_is_of_the_current_file_and_attempt(clock):
    first = [at(done * MIB) for done in (50, 60, 70)]
    again = [at(done * MIB) for done in (0, 20, 40)]
    unpacking = at(3 * MIB, None, is_unpacking=True)
    assert lines(clock, *first, *again, unpacking) == [
        "set.zip: 60.0 MiB of 100.0 MiB",
        "set.zip: 70.0 MiB of 100.0 MiB, 1.0 MiB/s, ETA 30 s",
        "set.zip: 0 B of 100.0 MiB",
        "set.zip: 20.0 MiB of 100.0 MiB",
        "set.zip: 40.0 MiB of 100.0 MiB, 2.0 MiB/s, ETA 30 s",
        "set.zip, unpacking: 3.0 MiB so far",
    ]


def test_a_file_gets_a_line_every_ten_seconds(clock):
    out = io.StringIO()
    with console(out, clock) as (print, draw):
        print("set: downloading")
        for second in range(31):
            clock.s = second
            draw(at(second * MIB))
    found = out.getvalue().splitlines()
    assert found[:2] == ["set: downloading", "set.zip: 10.0 MiB of 100.0 MiB, 1.0 MiB/s, ETA 1m30s"]
    assert len(found) == 4


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_that_is_removed_at_the_end(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out = Screen()
    with console(out, clock) as (print, draw):
        for second in (0, 5, 10):
            clock.s = second
            draw(at(second * MIB))
        print("set: downloaded")
    text = out.getvalue()
    assert "━" in text and "10.0 MiB of 100.0 MiB" in text and "ETA 1m30s" in text
    assert "set: downloaded\n" in text and text.endswith("\x1b[2K")
