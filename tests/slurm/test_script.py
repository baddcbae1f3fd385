"""A job script as text: headers override one another, arguments are unchanged."""

import shlex
import subprocess

import pytest

from gearshift.slurm.sbatch import FOLDER
from gearshift.slurm.script import render

ARGUMENTS = ["--set", "optim.betas=[0.9, 0.99]", "--out", "it's $HOME", "--data", '"a" `b`', ""]


def _header(text):
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH " in line]


def test_a_header_overrides_that_of_the_shipped_file():
    text = render("fast", {"nodes": "4", "partition": "gpu", "exclusive": None}, ())
    assert _header(text) == [
        *("--job-name=gearshift-fast", "--nodes=4", "--time=04:00:00", "--output=%x-%j.out"),
        *("--open-mode=append", "--requeue", "--signal=B:USR1@300", "--partition=gpu"),
        "--exclusive",
    ]
    text = render("fast", {"no-requeue": None}, ())
    assert "--requeue" not in _header(text) and "--no-requeue" in _header(text)


def test_arguments_reach_the_launcher_unchanged(tmp_path):
    shared = tmp_path / "job.sh"
    shared.write_text("gearshift_job() { printf '%s\\0' \"$@\"; }\n")
    script = tmp_path / "job.sbatch"
    text = render("fast", {}, ARGUMENTS)
    script.write_text(text.replace(str(FOLDER / "job.sh"), str(shared)))
    done = subprocess.run(["bash", str(script), "more"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0") == [*ARGUMENTS, "more", ""]


def test_a_value_with_blanks_is_quoted_for_sbatch_and_one_with_a_line_break_an_error():
    text = render("fast", {"comment": "two words"}, ())
    (line,) = (line for line in _header(text) if "two" in line)
    assert shlex.split(line) == ["--comment=two words"]
    for header in ({"comment": "a\n#SBATCH --wrap=b"}, {"a\nb": None}):
        with pytest.raises(ValueError, match="contains a line break"):
            render("fast", header, ())
