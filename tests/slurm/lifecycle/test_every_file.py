"""Every shipped job file, submitted unchanged: modes, stages, an array, GPUs."""

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


def test_an_array_makes_runs_with_their_own_arguments(login):
    rates = ["1e-5", "2e-5"]
    lines = "\n".join(f"--set optim.lr={rate}" for rate in rates)
    (login.folder / "words.txt").write_text(lines + "\n", encoding="utf-8")
    training = [*login.training(20, {}), "--set", "optim.lr=9e-5"]
    array = ("sbatch", "--parsable", "--array=1-2%2", "slurm/sweep.sbatch", "words.txt")
    output = login.type(*array, *training)
    ids = [f"{output}_{element}" for element in range(1, 3)]
    names = [(number, f"gearshift-sweep-{number}") for number in ids]
    jobs = [login.job(number, f"runs/{name}", f"{name}.out") for number, name in names]
    for job in jobs:
        job.wait("COMPLETED")
        assert job.steps == list(range(1, 21))
    firsts = [job.lines("train")[-1]["lr"] for job in jobs]
    assert sorted(set(firsts)) == firsts


def test_there_is_a_rank_for_each_gpu_of_a_node(login):
    job = login.sbatch("fast", "gpus", options=["--nodes=1", "--gpus-per-node=2"], steps=50)
    job.wait_for_step(5)
    seen = [rank.environ() for rank in job.ranks()]
    job.wait("COMPLETED")
    assert [environment["SLURM_LOCALID"] for environment in seen] == ["0", "1"]
    assert {environment["CUDA_VISIBLE_DEVICES"] for environment in seen} == {"0,1"}
    assert job.result["world_size"] == 2
