"""Rank 0 has an address that every node can reach, or a missing one is an error."""

from dataclasses import replace

import pytest

from slurm.address import reachable
from slurm.environment import InvalidEnvironment, RankEnvironment

TWO_NODES = RankEnvironment(1, 2, 0, 1, 1, "node1", 20000, "srun")
STEP = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_JOB_NODELIST": "node[1-2]"}
NAMES = {"node1": ["127.0.1.1"], "localhost": ["127.0.0.1"], "good": ["10.0.0.1"]}


def names(name):
    return NAMES.get(name, [name] if name[0].isdigit() else [])


def address(rank_environment, environ, node_address=None):
    return reachable(rank_environment, environ, names, lambda _node: node_address).master_addr


LOOPBACK = "a loopback address, which other nodes cannot reach"
LAUNCHED = {"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1", "ENVIRONMENT": "BATCH"}


@pytest.mark.parametrize(
    ("rank", "environ", "node_address", "expected"),
    [
        (replace(TWO_NODES, master_addr="good"), STEP, "10.9.9.9", "good"),
        (TWO_NODES, STEP, "10.0.0.1", "10.0.0.1"),
        (replace(TWO_NODES, rank=0, node=0), STEP, "10.0.0.1", "node1"),
        (replace(TWO_NODES, master_addr="node7"), STEP, "10.0.0.1", "10.0.0.1"),
        (TWO_NODES, STEP | LAUNCHED, None, "10.0.0.1"),
    ],
)
def test_an_address_is_kept_unless_it_is_loopback_or_unknown_here(rank, environ, node_address, expected):
    assert address(rank, environ, node_address) == expected


def test_a_single_node_of_srun_needs_no_host_name():
    alone = RankEnvironment(1, 2, 1, 2, 0, "unknown", 20000, "srun")
    assert address(alone, STEP) == "127.0.0.1"
    assert address(replace(alone, master_addr="good"), {"MASTER_ADDR": "good"}) == "127.0.0.1"


@pytest.mark.parametrize(
    ("ranks", "environ", "message"),
    [
        # srun was run on a login node, which has no ranks.
        (TWO_NODES, STEP | {"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"}, "host of rank 0=node1"),
        (replace(TWO_NODES, master_addr="127.0.0.1"), {}, f"MASTER_ADDR=127.0.0.1, {LOOPBACK}"),
        (
            replace(TWO_NODES, master_addr="nowhere", source="torchrun"),
            {},
            "MASTER_ADDR=nowhere, which .* cannot resolve",
        ),
    ],
)
def test_an_address_that_other_nodes_cannot_reach_is_an_error(ranks, environ, message):
    environ = environ or {"MASTER_ADDR": ranks.master_addr}
    with pytest.raises(InvalidEnvironment, match=message) as error:
        address(ranks, environ)
    assert "scontrol show node" in error.value.allowed
