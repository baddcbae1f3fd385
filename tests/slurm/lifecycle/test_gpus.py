"""GPUs that Slurm allocates to a job, and their visibility in the ranks."""

import pytest

pytestmark = pytest.mark.slow


def test_there_is_a_rank_for_each_gpu_of_a_node(login):
    job = login.sbatch("fast", "gpus", options=["--nodes=1", "--gpus-per-node=2"], steps=50)
    job.wait_for_step(5)
    seen = [rank.environ() for rank in job.ranks()]
    job.wait("COMPLETED")
    assert [environment["SLURM_LOCALID"] for environment in seen] == ["0", "1"]
    assert {environment["CUDA_VISIBLE_DEVICES"] for environment in seen} == {"0,1"}
    assert job.result["world_size"] == 2
