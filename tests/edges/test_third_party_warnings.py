"""Warnings of libraries are in log.txt, once; those of a custom task are on the console."""

import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import pytest

from launcher.base import library_warnings
from training.logging.outputs import PREVIEW_LINES, shortened

LIBRARY = str(Path(sysconfig.get_path("purelib")) / "torch" / "nn" / "x.py")
HERE = str(Path(__file__).parents[2])


@pytest.fixture(autouse=True)
def always():
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield


def test_a_warning_of_a_library_is_written_once_and_not_shown(capsys):
    written = []
    with library_warnings.logged(written.append):
        for _ in range(3):
            warnings.warn_explicit("old name", FutureWarning, LIBRARY, 7)
        warnings.warn_explicit("older name", FutureWarning, LIBRARY, 9)
    assert written == [
        f"warning of a library: {LIBRARY}:7: FutureWarning: old name",
        f"warning of a library: {LIBRARY}:9: FutureWarning: older name",
    ]
    assert capsys.readouterr().err == ""


def test_a_warning_of_the_users_code_is_shown(tmp_path):
    written = []
    with pytest.warns(UserWarning, match="mine"), library_warnings.logged(written.append):
        warnings.warn_explicit("mine", UserWarning, str(tmp_path / "my_task.py"), 3)
    assert written == []


def test_afterwards_warnings_are_shown_as_before(capsys):
    before = warnings.showwarning
    with pytest.raises(ZeroDivisionError), library_warnings.logged(lambda text: None):
        raise ZeroDivisionError
    assert warnings.showwarning is before


@pytest.mark.parametrize("name", ["models/x.py", "launcher/x.py", "training/a/b.py"])
def test_a_warning_that_a_library_gives_our_code_is_one_of_a_library(name):
    assert library_warnings.is_library(f"{HERE}/{name}")
    assert not library_warnings.is_library(f"{HERE}/docs/examples/images.py")


def run(folder, *args):
    return subprocess.run(
        [sys.executable, "-m", "launcher", *args],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": HERE, "PYTHONWARNINGS": "always"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["language", "doc_translation", "abr", "eeg_text"])
def test_no_warning_of_a_library_reaches_the_console(family, tmp_path):
    done = run(tmp_path, "--model", f"{family}:tiny", "--max-steps", "2", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "deprecated" not in done.stderr
    assert done.stdout.count("\n| ") <= 2 * PREVIEW_LINES


def test_a_preview_has_at_most_five_lines_without_empty_ones():
    text = "\n\n".join(f"line {number}" for number in range(18))
    assert shortened(text) == [*(f"line {n}" for n in range(4)), "… 14 more lines in log.txt"]
    assert shortened("a\n\nb\n") == ["a", "b"]
    assert shortened("\n".join("abcde")) == list("abcde")
    (line,) = shortened("x" * 500)
    assert len(line) == 100 and line.endswith("…")
