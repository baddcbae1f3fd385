"""What a plain run loads of this program: it pays for what it uses only."""

import json

from tests.launcher.given import python

UNUSED = (
    *("stages", "continual", "compare", "plan", "download", "doctor", "submit", "saved_runs"),
    *("config.input_errors", "config.custom_task", "run.supervisor", "run.experience"),
    *("run.job_generation", "run.dry_run"),
)
"""Rooms and files of launcher/ that are of features."""
MOST_MODULES = 163
"""Measured; fewer are better, and a new one has to be worth it in every run."""
PROGRAM = """
import json, sys
from gearshift.launcher.__main__ import main
assert main(["--max-steps", "3", "--engine", "local", "--set", "device=cpu", "--out", "run"]) == 0
print(json.dumps({name: getattr(module, "__file__", None) for name, module in sys.modules.items()}))
"""


def test_a_plain_run_loads_no_more_of_our_modules_than_it_uses(tmp_path):
    done = python("-c", PROGRAM, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout.splitlines()[-1])
    assert [
        name
        for name in (
            *(f"gearshift.launcher.{name}" for name in UNUSED),
            "gearshift.engines.zero",
            "gearshift.slurm.address",
        )
        if name in files
    ] == []
    ours = {file for name, file in files.items() if file and name.split(".")[0] == "gearshift"}
    assert len(ours) <= MOST_MODULES
