"""Arrays of runs, a line of words each."""

import os
import shlex
import subprocess

import pytest

from launcher.__main__ import main
from launcher.submit import sweep

TINY = ("submit", "--model", "language:tiny", "--max-steps", "20")
LINES = """\
--lr 1e-3 --set data.path='embedded:python'

# the same, slower
--lr 1e-4 --out elsewhere
"""


@pytest.fixture
def lines(here):
    (here / "lines.txt").write_text(LINES)


def test_each_line_is_a_run_in_a_folder_of_its_own(programs, here, lines, capsys):
    assert main([*TINY, "--sweep", "lines.txt", "--out", "all", "--array", "1-4:3%2"]) == 0
    text = (here / "all" / "slurm" / "job.sbatch").read_text()
    assert "#SBATCH --array=1,4%2\n" in text
    assert f"#SBATCH --output={here}/all/slurm/log/%A_%a.out\n" in text
    told = (here / "all" / "slurm" / "lines.txt").read_text().splitlines()
    assert [shlex.split(line) for line in told] == [
        ["--lr", "1e-3", "--set", "data.path=embedded:python", f"--out={here}/all/1"],
        [],
        [],
        ["--lr", "1e-4", f"--out={here}/elsewhere"],
    ]
    assert f"log      4: {here}/all/slurm/log/41_4.out" in capsys.readouterr().out


def test_elements_may_begin_at_0_and_differ_in_their_folder_alone(programs, here, capsys):
    assert main([*TINY, "--array", "0-2", "--out", "all"]) == 0
    text = (here / "all" / "slurm" / "job.sbatch").read_text()
    assert "#SBATCH --array=0-2\n" in text and "GEARSHIFT_SWEEP_FIRST=0" in text
    told = (here / "all" / "slurm" / "lines.txt").read_text().splitlines()
    assert told == [f"--out={here}/all/{number}" for number in range(3)]
    assert "3 runs with the same words" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        ("--lr 1\n--lr fast\n", [], "s.txt:2: --lr fast"),
        ("--lr 1\n--epohcs 2\n", [], "s.txt:2: the command line: --epohcs"),
        ("--lr 1\n--nodes 2\n", [], "--nodes is for all runs of an array, and not for one of them"),
        ("--lr 'a\n", [], "a line of words cannot be read: no closing quotation"),
        ("\n# nothing\n", [], "s.txt holds no line of words"),
        ("--lr 1\n", ["--array", "2"], "s.txt has no words for element 2"),
        ("--lr 1\n", ["--array", "5-2"], "--array '5-2' is not legal"),
        ("--mode staged --model eeg_text:tiny\n", [], "mode staged is a job for each stage"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_before_anything_is_queued(
    programs, here, capsys, text, words, told
):
    (here / "s.txt").write_text(text)
    assert main([*TINY, "--sweep", "s.txt", *words]) == 2
    assert told in capsys.readouterr().err
    assert programs.calls("sbatch") == [] and os.listdir(here) == ["s.txt"]


def test_a_file_that_is_not_there_is_told(programs, here, capsys):
    assert main([*TINY, "--sweep", "s.txt"]) == 2
    assert "s.txt cannot be read: No such file or directory" in capsys.readouterr().err


def test_a_line_is_read_by_the_job_as_it_was_written():
    words = ["--set", 'a="b c"', "it's", "--lr", "1e-3", "$HOME", "back\\slash"]
    done = subprocess.run(
        ["xargs", "-r", "printf", "%s\\n"],
        input=sweep.line(words) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == words


def test_numbers_in_a_row_are_a_range():
    assert sweep.indices([1, 2, 3, 7, 9, 10], "%2") == "1-3,7,9-10%2"
