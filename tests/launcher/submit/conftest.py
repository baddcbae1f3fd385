"""A login node: an empty folder, and an sbatch that records its calls."""

import pytest

from tests.slurm.programs import programs_in_path

CLEAN = ("GEARSHIFT_SITE", "GEARSHIFT_PYTHON", "GEARSHIFT_RANKS_PER_NODE", "SLURM_JOB_ID")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder of the user."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in CLEAN:
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def programs(tmp_path, here, monkeypatch):
    """Slurm's programs; sbatch accepts every job, the first one as 41."""
    slurm_programs = programs_in_path(tmp_path / "bin", monkeypatch)
    slurm_programs.add("sbatch", *((0, f"{40 + n}\n", "") for n in range(9)))
    slurm_programs.add("scancel")
    return slurm_programs
