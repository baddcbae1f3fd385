"""A comparison whose runs are shared by the tasks of a job array, on a real cluster."""

import json
import sys

import pytest

from tests.slurm.cluster.processes import wait_until
from tests.slurm.login import read


@pytest.mark.slow
def test_the_tasks_of_an_array_share_the_runs_of_a_study(login):
    words = ["compare", "--model", "language:tiny", "--data", "text.txt", "--set", "device=cpu"]
    words += ["--modes", "default", "--steps", "2", "--seeds", "2", "--out", "study"]
    line = f"{sys.executable} -m launcher {' '.join(words)}"
    options = ("--parsable", "--array=0-1", "--output=array-%a.out", "--wrap", line)
    number = login.type("sbatch", *options).partition(";")[0]

    def has_ended():
        return login.type("squeue", "-h", "-j", number) == ""

    assert wait_until(has_ended, 200)
    logs = [read(login.folder / f"array-{task}.out") for task in (0, 1)]
    assert all("run 1 of 1: default local" in log for log in logs), logs
    assert any("report: study/compare.html" in log for log in logs), logs
    content = json.loads((login.folder / "study" / "compare.json").read_text())
    assert content["rows"][0]["study"]["finished"] == 2
