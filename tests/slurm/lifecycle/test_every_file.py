"""Every shipped job file, submitted unchanged."""

import pytest

from tests.slurm.login import CLONE

pytestmark = pytest.mark.slow

MODES = sorted(path.stem for path in (CLONE / "slurm").glob("*.sbatch"))


def test_every_file_of_a_mode_trains(login):
    modes = [name for name in MODES if name not in ("staged", "sweep")]
    jobs = {name: login.sbatch(name, name, options=["--nodes=1"], steps=5) for name in modes}
    for job in jobs.values():
        job.wait("COMPLETED")
        assert job.steps == [1, 2, 3, 4, 5]
    trained_modes = {name: job.result["mode"] for name, job in jobs.items()}
    assert trained_modes == {name: name for name in modes}


def test_each_stage_is_a_job_of_its_own(login):
    args = ["--model", "eeg_text:tiny", "--max-steps", "5", "--set", "device=cpu"]
    first = login.submit("staged", "chain", *args, options=["--nodes=1"])
    first.wait("COMPLETED")
    number = login.type("squeue", "--noheader", "--format=%i", "--name=gearshift-staged")
    assert number, first.output
    second = login.job(number, "chain/2-text", f"gearshift-staged-{number}.out")
    second.wait("COMPLETED")
    assert second.result["stage"] == "text"
