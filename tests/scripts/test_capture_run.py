"""The captured screen is the final screen of a terminal, not its whole output."""

from __future__ import annotations

import sys

import pytest

from scripts.capture_run import Screen, output_of, picture


def test_the_last_state_of_each_line_is_shown():
    for written, shown in (
        ("one\r\ntwo", ["one", "two"]),
        ("10%\r100%", ["100%"]),
        ("old\r\nline\x1b[1A\r\x1b[2Knew", ["new", "line"]),
        ("a\x1b[?25lb\x1b[?25h", ["ab"]),
        ("\x1b[1mbold\x1b[0m", ["\x1b[1mbold\x1b[0m"]),
    ):
        screen = Screen()
        screen.feed(written)
        assert screen.lines == shown


def test_a_command_runs_in_a_terminal_of_the_asked_width_and_one_that_fails_gives_no_picture():
    code = "import os, sys; print(sys.stdout.isatty(), os.get_terminal_size().columns)"
    assert output_of([sys.executable, "-c", code], 77).split() == ["True", "77"]
    with pytest.raises(RuntimeError, match="ended with 3"):
        output_of([sys.executable, "-c", "raise SystemExit(3)"], 80)


def test_the_picture_shows_the_command_and_the_lines():
    svg = picture(["\x1b[31mred\x1b[0m line"], ["gearshift", "run"], 80)
    assert svg.startswith("<svg") and "gearshift" in svg and "red" in svg
