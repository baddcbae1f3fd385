"""The pictures of the docs can be made again: the final screen of a terminal, and reports."""

from __future__ import annotations

import shutil
import sys

import pytest

pytest.importorskip("playwright")
Image = pytest.importorskip("PIL.Image")
from scripts.capture import COLORS, WIDTH, capture_report, final_screen, output_of, terminal_picture  # noqa: E402


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("one\r\ntwo", ["one", "two"]),
        ("10%\r100%", ["100%"]),
        ("old\r\nline\x1b[1A\r\x1b[2Knew", ["new", "line"]),
        ("a\x1b[?25lb\x1b[?25h", ["ab"]),
        ("\x1b[1mbold\x1b[0m", ["\x1b[1mbold\x1b[0m"]),
    ],
)
def test_the_last_state_of_each_line_is_shown(written, shown):
    assert final_screen(written) == shown


def test_a_command_runs_in_a_terminal_and_one_that_fails_gives_no_picture():
    code = "import sys; print(sys.stdout.isatty())"
    assert output_of([sys.executable, "-c", code]).split() == ["True"]
    with pytest.raises(RuntimeError, match="ended with 3"):
        output_of([sys.executable, "-c", "raise SystemExit(3)"])
    svg = terminal_picture(["\x1b[31mred\x1b[0m line"], ["gearshift", "run"])
    assert svg.startswith("<svg") and "gearshift" in svg and "red" in svg


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_run_that_fails_has_a_picture_of_its_report(tmp_path):
    capture_report("diverged", tmp_path / "picture.png")
    picture = Image.open(tmp_path / "picture.png")
    assert picture.width == WIDTH
    assert 8 < len(picture.getcolors()) <= COLORS
