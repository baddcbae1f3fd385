"""Ranks and generations from the variables of torchrun, srun and job.sh."""

import pytest

from gearshift.slurm.environment import Generation, InvalidEnvironment, RankEnvironment
from gearshift.slurm.variables import read_generation, read_rank_environment

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
TORCHRUN |= {"GROUP_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
JOB = {"GEARSHIFT_JOB": "1", "GEARSHIFT_GENERATION": "1"}
SRUN = {"SLURM_JOB_ID": "41234", "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_NTASKS": "77"}
SRUN |= {"SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_NUM_TASKS": "7"}
SRUN |= {"SLURM_STEP_TASKS_PER_NODE": "4,3", "SLURM_STEP_NODELIST": "node[01-02]"}


def without(variables, *names):
    return {name: value for name, value in variables.items() if name not in names}


@pytest.mark.parametrize(
    "variables",
    [
        {"PATH": "/bin", "MASTER_ADDR": "node1"},
        # Slurm sets these in the batch script itself, where no srun has run.
        {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"},
        {**SRUN, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
    ],
    ids=["alone", "batch script", "one task"],
)
def test_a_process_without_torchrun_or_srun_has_no_rank(variables):
    assert read_rank_environment(variables) is None


def test_torchrun_variables_are_read_before_those_of_srun():
    expected = RankEnvironment(5, 8, 1, 4, 1, "node1", 29500, "torchrun")
    for variables in (TORCHRUN, {**SRUN, **TORCHRUN}):
        assert read_rank_environment(variables) == expected


def test_srun_variables_of_the_step_are_read_and_give_torch_the_same_rank():
    ranks, port = read_rank_environment(SRUN | {"GEARSHIFT_RENDEZVOUS": "secret"}), 25234
    facts = (5, 7, 1, 3, 1, "node01", port, "srun")
    assert ranks == RankEnvironment(*facts, rendezvous="41234.0.0.secret")
    again = read_rank_environment(ranks.variables())
    assert (again.rank, again.world_size, again.local_size) == (5, 7, 3)
    assert (again.master_addr, again.master_port) == ("node01", port)
    ranks = read_rank_environment({**SRUN, "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4321"})
    assert (ranks.master_addr, ranks.master_port) == ("10.0.0.7", 4321)


def test_the_cpus_of_a_rank_are_those_of_slurm():
    for variables, cpus in (
        ({}, None),
        ({"SLURM_CPUS_PER_TASK": "12"}, 12),
        ({"SRUN_CPUS_PER_TASK": "6", "SLURM_CPUS_ON_NODE": "64"}, 6),
        ({"SLURM_CPUS_ON_NODE": "64"}, 21),  # of three ranks on this node
        ({"SLURM_CPUS_ON_NODE": "2"}, 1),
    ):
        assert read_rank_environment(SRUN | variables).cpus == cpus, variables


def test_the_first_host_and_the_tasks_of_a_node():
    for nodes, first in (
        ("gpu7", "gpu7"),
        ("node[01-04,7],big", "node01"),
        ("rack[2-3]n[08-09]", "rack2n08"),
    ):
        assert read_rank_environment({**SRUN, "SLURM_STEP_NODELIST": nodes}).master_addr == first
    for counts, node, size in (("4", "0", 4), ("4(x2),3", "1", 4), ("4(x2),3", "2", 3)):
        tasks = {"SLURM_STEP_TASKS_PER_NODE": counts, "SLURM_NODEID": node}
        assert read_rank_environment(SRUN | tasks).local_size == size, tasks


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"RANK": "0"}, ("WORLD_SIZE=", "torchrun")),
        (without(TORCHRUN, "MASTER_ADDR"), ("MASTER_ADDR: the host of rank 0",)),
        ({**TORCHRUN, "RANK": "8"}, ("RANK=8", "WORLD_SIZE=8")),
        ({**TORCHRUN, "WORLD_SIZE": "3", "RANK": "1"}, ("WORLD_SIZE=3", "LOCAL_WORLD_SIZE=4")),
        ({**TORCHRUN, "MASTER_PORT": "65536"}, ("MASTER_PORT=65536",)),
        ({**TORCHRUN, "LOCAL_RANK": "-1"}, ("LOCAL_RANK=-1",)),
        (without(SRUN, "SLURM_STEP_NUM_TASKS"), ("SLURM_STEP_NUM_TASKS=", "srun")),
        (without(SRUN, "SLURM_STEP_NODELIST"), ("MASTER_ADDR", "SLURM_STEP_NODELIST")),
        ({**SRUN, "SLURM_PROCID": "7"}, ("RANK=7", "WORLD_SIZE=7")),
        ({**SRUN, "SLURM_LOCALID": "3"}, ("LOCAL_RANK=3", "LOCAL_WORLD_SIZE=3")),
        ({**SRUN, "SLURM_NODEID": "2"}, ("SLURM_NODEID=2", "SLURM_STEP_TASKS_PER_NODE=4,3")),
        ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "4(y)"}, ("SLURM_STEP_TASKS_PER_NODE=4(y)",)),
        ({"GEARSHIFT_JOB": "12"}, ("GEARSHIFT_JOB=12", "GEARSHIFT_GENERATION")),
        ({"GEARSHIFT_JOB": "../x", "GEARSHIFT_GENERATION": "1"}, ("GEARSHIFT_JOB=../x",)),
        ({**JOB, "TORCHELASTIC_RESTART_COUNT": "x"}, ("TORCHELASTIC_RESTART_COUNT=x",)),
    ],
)
def test_missing_or_contradictory_variables_are_named(variables, named):
    read = read_generation if "GEARSHIFT_JOB" in variables else read_rank_environment
    with pytest.raises(InvalidEnvironment) as error:
        read(variables)
    assert [text for text in named if text not in str(error.value)] == []


def test_job_number_and_restart_are_read():
    assert read_generation({}) is None  # without a job script
    names = ("GEARSHIFT_JOB", "GEARSHIFT_GENERATION", "TORCHELASTIC_RESTART_COUNT")
    for values in (("12", 0), ("12_3", 4), ("12", 1, 2)):
        expected = Generation(*values)
        assert read_generation(dict(zip(names, map(str, values), strict=False))) == expected


def test_a_generation_follows_earlier_ones_of_the_same_job_only():
    first, second, restarted = Generation("12", 0), Generation("12", 1), Generation("12", 0, 1)
    assert second.follows(first) and restarted.follows(first) and second.follows(restarted)
    assert not first.follows(second) and not first.follows(first)
    assert not Generation("13", 5).follows(first)
