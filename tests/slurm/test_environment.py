"""Ranks and generations from the variables of torchrun, srun and job.sh."""

import subprocess
import sys
from pathlib import Path

import pytest

from slurm.environment import (
    Generation,
    InvalidEnvironment,
    RankEnvironment,
    parse_generation,
    read_generation,
    read_rank_environment,
)

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_JOB_ID": "41234",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_NTASKS": "77",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4,3",
    "SLURM_STEP_NODELIST": "node[01-02]",
}


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


def test_srun_variables_of_the_step_are_read():
    ranks = read_rank_environment(SRUN)
    assert ranks == RankEnvironment(
        *(5, 7, 1, 3, 1, "node01", 20000 + 41234 % 12000, "srun"), rendezvous="41234.0.0"
    )


def test_the_variables_for_torch_give_the_same_rank():
    ranks = read_rank_environment(SRUN)
    again = read_rank_environment(ranks.variables())
    assert (again.rank, again.world_size, again.local_size) == (5, 7, 3)
    assert (again.master_addr, again.master_port) == ("node01", ranks.master_port)


def test_master_addr_overrides_the_node_list():
    ranks = read_rank_environment({**SRUN, "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4321"})
    assert (ranks.master_addr, ranks.master_port) == ("10.0.0.7", 4321)


@pytest.mark.parametrize(
    ("variables", "cpus"),
    [
        ({}, None),
        ({"SLURM_CPUS_PER_TASK": "12"}, 12),
        ({"SRUN_CPUS_PER_TASK": "6", "SLURM_CPUS_ON_NODE": "64"}, 6),
        ({"SLURM_CPUS_ON_NODE": "64"}, 21),  # of three ranks on this node
        ({"SLURM_CPUS_ON_NODE": "2"}, 1),
    ],
)
def test_the_cpus_of_a_rank_are_those_of_slurm(variables, cpus):
    assert read_rank_environment(SRUN | variables).cpus == cpus


@pytest.mark.parametrize("other", ["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"])
def test_jobs_steps_and_generations_have_different_rendezvous_ids(other):
    assert (
        read_rank_environment(SRUN).rendezvous
        != read_rank_environment({**SRUN, other: "3"}).rendezvous
    )


def test_a_port_is_below_the_ephemeral_ports_and_that_of_one_step():
    for name, count in (("SLURM_JOB_ID", 90000), ("SLURM_STEP_ID", 20)):
        numbers = range(0, count, max(1, count // 90))
        found = [read_rank_environment({**SRUN, name: str(n)}).master_port for n in numbers]
        assert all(20000 <= port < 32768 - 8 for port in found)
    assert len(set(found)) == len(found) == 20


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu7", "gpu7"),
        ("node[01-04,7],big", "node01"),
        ("a,b[1-2]", "a"),
        ("rack[2-3]n[08-09]", "rack2n08"),
        ("node[1-2].cluster", "node1.cluster"),
    ],
)
def test_the_first_host_of_a_node_list(nodes, first):
    assert read_rank_environment({**SRUN, "SLURM_STEP_NODELIST": nodes}).master_addr == first


@pytest.mark.parametrize(
    ("counts", "node", "size"), [("4", 0, 4), ("4(x2),3", 1, 4), ("4(x2),3", 2, 3)]
)
def test_the_tasks_of_a_node(counts, node, size):
    ranks = read_rank_environment(
        {**SRUN, "SLURM_STEP_TASKS_PER_NODE": counts, "SLURM_NODEID": str(node)}
    )
    assert ranks.local_size == size


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"RANK": "0"}, "RANK=0 without WORLD_SIZE, LOCAL_RANK"),
        ({**TORCHRUN, "RANK": "8"}, "RANK=8, WORLD_SIZE=8; RANK: 0 to 7"),
        ({**TORCHRUN, "RANK": "x"}, "RANK=x; RANK: an integer"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "9"}, "LOCAL_WORLD_SIZE=9, WORLD_SIZE=8"),
        ({**TORCHRUN, "MASTER_PORT": "70000"}, "MASTER_PORT=70000"),
        (without(SRUN, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), "without SLURM_STEP_NUM_TASKS"),
        (without(SRUN, "SLURM_STEP_NODELIST"), "without MASTER_ADDR or SLURM_STEP_NODELIST"),
        ({**SRUN, "SLURM_PROCID": "7"}, "SLURM_PROCID=7, SLURM_STEP_NUM_TASKS=7"),
        ({**SRUN, "SLURM_NODEID": "2"}, "SLURM_NODEID=2, SLURM_STEP_TASKS_PER_NODE=4,3"),
        ({**SRUN, "SLURM_CPUS_PER_TASK": "many"}, "SLURM_CPUS_PER_TASK=many"),
        ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "4(y)"}, "SLURM_STEP_TASKS_PER_NODE=4(y)"),
    ],
)
def test_missing_or_contradictory_variables_are_named(variables, named):
    with pytest.raises(InvalidEnvironment) as error:
        read_rank_environment(variables)
    assert named in str(error.value)


def test_reading_the_environment_needs_the_standard_library_only():
    code = "import sys; import slurm.environment; print(sorted(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert "'slurm.environment'" in loaded
    assert "torch" not in loaded


def test_without_a_job_script_there_is_no_generation():
    assert read_generation({}) is None
    assert read_generation({"GEARSHIFT_JOB": "", "SLURM_JOB_ID": "7"}) is None


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({"GEARSHIFT_JOB": "12", "GEARSHIFT_GENERATION": "0"}, Generation("12", 0)),
        ({"GEARSHIFT_JOB": "12_3", "GEARSHIFT_GENERATION": "4"}, Generation("12_3", 4)),
        (
            {"GEARSHIFT_JOB": "12", "GEARSHIFT_GENERATION": "1", "TORCHELASTIC_RESTART_COUNT": "2"},
            Generation("12", 1, 2),
        ),
    ],
)
def test_job_number_and_restart_are_read_and_survive_as_text(variables, expected):
    assert read_generation(variables) == expected
    assert parse_generation(str(expected)) == expected


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"GEARSHIFT_JOB": "12"}, "GEARSHIFT_JOB=12 without GEARSHIFT_GENERATION"),
        ({"GEARSHIFT_GENERATION": "1"}, "GEARSHIFT_GENERATION=1 without GEARSHIFT_JOB"),
        ({"GEARSHIFT_JOB": "../x", "GEARSHIFT_GENERATION": "1"}, "GEARSHIFT_JOB=../x"),
        ({"GEARSHIFT_JOB": "12", "GEARSHIFT_GENERATION": "-1"}, "GEARSHIFT_GENERATION=-1"),
        (
            {"GEARSHIFT_JOB": "1", "GEARSHIFT_GENERATION": "1", "TORCHELASTIC_RESTART_COUNT": "x"},
            "TORCHELASTIC_RESTART_COUNT=x",
        ),
    ],
)
def test_missing_and_malformed_job_variables_are_named(variables, message):
    with pytest.raises(InvalidEnvironment) as error:
        read_generation(variables)
    assert error.value.message == message


def test_a_generation_follows_earlier_ones_of_the_same_job_only():
    first, second, restarted = Generation("12", 0), Generation("12", 1), Generation("12", 0, 1)
    assert second.follows(first) and restarted.follows(first) and second.follows(restarted)
    assert not first.follows(second) and not first.follows(first)
    assert not Generation("13", 5).follows(first)


@pytest.mark.parametrize("text", ["12", "12.x", "12.1.2.3"])
def test_invalid_text_is_no_generation(text):
    assert parse_generation(text) is None
