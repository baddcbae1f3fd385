"""Many runs in one array."""

import pytest

pytestmark = pytest.mark.slow


def test_an_array_of_four_makes_four_runs_with_their_own_arguments(login):
    rates = ["1e-5", "2e-5", "3e-5", "4e-5"]
    lines = "\n".join(f"--set optim.lr={rate}" for rate in rates)
    (login.folder / "words.txt").write_text(lines + "\n", encoding="utf-8")
    training = [*login.training(20, {}), "--set", "optim.lr=9e-5"]
    output = login.type(
        *("sbatch", "--parsable", "--array=1-4%2", "slurm/sweep.sbatch", "words.txt", *training)
    )
    jobs = [
        login.job(
            f"{output}_{element}",
            f"runs/gearshift-sweep-{output}_{element}",
            f"gearshift-sweep-{output}_{element}.out",
        )
        for element in range(1, 5)
    ]
    for job in jobs:
        job.wait("COMPLETED")
        assert job.steps == list(range(1, 21))
    firsts = [job.lines("train")[-1]["lr"] for job in jobs]
    assert sorted(set(firsts)) == firsts
