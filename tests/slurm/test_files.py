"""The shipped job files: rendered, valid shell, and portable between sites."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gearshift.launcher.config import presets
from gearshift.slurm.script import SHIPPED

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "slurm"
_NOT_EVERYWHERE = ("partition", "account", "qos", "gres", "gpus", "exclusive", "constraint", "mem")


def test_each_mode_and_the_sweep_have_a_job_file():
    files = {path.stem for path in FOLDER.glob("*.sbatch")}
    assert files == {*presets.modes(), "sweep"} == set(SHIPPED)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_file_is_the_script_of_its_mode_and_requests_what_every_site_has(name):
    text = (FOLDER / f"{name}.sbatch").read_text()
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash" and f"#SBATCH --job-name=gearshift-{name}" in lines
    # All of them source job.sh alike.
    other = (FOLDER / "default.sbatch").read_text()
    start, end = other.index("# The functions"), other.rindex("\n\n")
    assert other[start:end] in text
    if name not in ("default", "staged", "sweep"):
        assert f'\ngearshift_job --mode {name} "$@"\n' in text
    requested = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.MULTILINE))
    assert not [option for option in requested if option.startswith(_NOT_EVERYWHERE)]
    always = {"requeue": "", "open-mode": "append", "signal": "B:USR1@300"}
    assert {**requested, **always} == requested
    # Slurm does not create the folder of a log, and does not start a job without it.
    assert "/" not in requested["output"]
    # sbatch ignores header lines after the first command.
    assert text.rindex("#SBATCH") < text.index("\n. ")


def test_shell_files_are_clean():
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("needs shellcheck")
    files = [FOLDER / "fast.sbatch", FOLDER / "sweep.sbatch", *FOLDER.glob("*.sh")]
    done = subprocess.run([program, "-x", *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
