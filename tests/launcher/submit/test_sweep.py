"""Job arrays: one run per line of options."""

import os
import shlex

import pytest

TINY = ("submit", "--model", "language:tiny", "--max-steps", "20")
LINES = """\
--lr 1e-3 --set data.path='embedded:python'

# the same, slower
--lr 1e-4 --out elsewhere
"""


@pytest.fixture
def lines(here):
    (here / "lines.txt").write_text(LINES)


def test_each_line_is_a_run_in_its_own_folder(programs, here, lines, said):
    out = said(*TINY, "--sweep", "lines.txt", "--out", "all", "--array", "1,4%2")
    text = (here / "all" / "slurm" / "job.sbatch").read_text()
    assert "#SBATCH --array=1,4%2\n" in text
    assert f"#SBATCH --output={here}/all/slurm/log/%A_%a.out\n" in text
    command_lines = (here / "all" / "slurm" / "lines.txt").read_text().splitlines()
    assert [shlex.split(line) for line in command_lines] == [
        ["--lr", "1e-3", "--set", "data.path=embedded:python", f"--out={here}/all/1"],
        [],
        [],
        ["--lr", "1e-4", f"--out={here}/elsewhere"],
    ]
    assert f"log      {here}/all/slurm/log/41_1.out" in out


def test_a_sweep_may_be_submitted_again(programs, here, lines, said):
    sweep = (*TINY, "--sweep", "lines.txt", "--out", "all")
    said(*sweep)
    (here / "all" / "1").mkdir()
    said(*sweep)
    assert "#SBATCH --array=1,4\n" in (here / "all" / "slurm" / "job.sbatch").read_text()


def test_an_array_without_a_sweep_is_an_error(programs, here, said):
    [error] = said(*TINY, "--array", "1-8", "--json", code=2)["diagnostics"]
    assert error["where"] == "command line: --array 1-8"
    assert programs.calls("sbatch") == [] and os.listdir(here) == []


def test_a_folder_with_files_of_the_user_is_an_error(programs, here, lines, said):
    name = "all/1/settings.yaml"
    (here / name).parent.mkdir(parents=True)
    (here / name).write_text("mine")
    said(*TINY, "--sweep", "lines.txt", "--out", "all", code=2)
    assert (here / name).read_text() == "mine"
    assert programs.calls("sbatch") == []


@pytest.mark.parametrize(
    ("text", "arguments", "where"),
    [
        ("--lr 1\n--lr fast\n", [], "s.txt:2: --lr fast"),
        ("--lr 1\n--nodes 2\n", [], "s.txt:2"),
        ("--lr 'a\n", [], "s.txt:1"),
        ("\n# nothing\n", [], "s.txt"),
        ("--lr 1\n", ["--array", "2"], "--array 2"),
        ("--lr 1\n", ["--array", "2-1"], "--array"),
        ("--lr 1\n", ["--array", "1;2"], "--array"),
        ("--mode staged --model eeg_text:tiny\n", [], "s.txt:1"),
    ],
)
def test_an_invalid_line_is_an_error_before_any_job_is_submitted(
    programs, here, said, text, arguments, where
):
    (here / "s.txt").write_text(text)
    [error] = said(*TINY, "--sweep", "s.txt", *arguments, "--json", code=2)["diagnostics"]
    assert where in error["where"]
    assert programs.calls("sbatch") == [] and os.listdir(here) == ["s.txt"]
