"""Rank 0 has an address that every node can reach, or a missing one is an error."""

from dataclasses import replace

import pytest

from gearshift.slurm.address import reachable
from gearshift.slurm.environment import InvalidEnvironment, RankEnvironment

TWO_NODES = RankEnvironment(1, 2, 0, 1, 1, "node1", 20000, "srun")
STEP = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_JOB_NODELIST": "node[1-2]"}
NAMES = {"node1": ["127.0.1.1"], "localhost": ["127.0.0.1"], "good": ["10.0.0.1"]}


def names(name):
    return NAMES.get(name, [name] if name[0].isdigit() else [])


def address(rank_environment, environ, node_address=None):
    return reachable(rank_environment, environ, names, lambda _node: node_address).master_addr


LAUNCHED = {"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"}
ALONE = RankEnvironment(1, 2, 1, 2, 0, "unknown", 20000, "srun")
"""A single node of srun, which needs no host name."""


@pytest.mark.parametrize(
    ("rank", "environ", "node_address", "expected"),
    [
        (replace(TWO_NODES, master_addr="good"), STEP, "10.9.9.9", "good"),
        (TWO_NODES, STEP, "10.0.0.1", "10.0.0.1"),
        (replace(TWO_NODES, rank=0, node=0), STEP, "10.0.0.1", "node1"),
        (replace(TWO_NODES, master_addr="node7"), STEP, "10.0.0.1", "10.0.0.1"),
        (TWO_NODES, STEP | LAUNCHED | {"ENVIRONMENT": "BATCH"}, None, "10.0.0.1"),
        (ALONE, STEP, None, "127.0.0.1"),
        (replace(ALONE, master_addr="good"), {"MASTER_ADDR": "good"}, None, "127.0.0.1"),
    ],
)
def test_an_address_is_kept_unless_it_is_loopback_or_unknown_here(
    rank, environ, node_address, expected
):
    assert address(rank, environ, node_address) == expected


@pytest.mark.parametrize(
    ("rank", "environ", "named"),
    [
        (TWO_NODES, STEP | LAUNCHED, "node1"),  # srun was run on a login node, which has no ranks
        (
            replace(TWO_NODES, master_addr="127.0.0.1"),
            {"MASTER_ADDR": "127.0.0.1"},
            "MASTER_ADDR=127.0.0.1",
        ),
        (
            replace(TWO_NODES, master_addr="nowhere"),
            {"MASTER_ADDR": "nowhere"},
            "MASTER_ADDR=nowhere",
        ),
    ],
)
def test_an_address_that_other_nodes_cannot_reach_is_an_error(rank, environ, named):
    with pytest.raises(InvalidEnvironment, match=named):
        address(rank, environ)
