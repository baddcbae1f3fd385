"""Rank 0 has an address that every node can reach, or a missing one is an error."""

from dataclasses import replace

import pytest

from gearshift.slurm.address import reachable
from gearshift.slurm.environment import InvalidEnvironment, RankEnvironment

TWO_NODES = RankEnvironment(1, 2, 0, 1, 1, "node1", 20000, "srun")
NAMES = {"node1": ["127.0.1.1"], "localhost": ["127.0.0.1"], "good": ["10.0.0.1"]}


def names(name):
    return NAMES.get(name, [name] if name[0].isdigit() else [])


ALONE = RankEnvironment(1, 2, 1, 2, 0, "unknown", 20000, "srun")
"""A single node of srun, which needs no host name."""


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (replace(TWO_NODES, master_addr="good"), "good"),
        (replace(TWO_NODES, rank=0, node=0), "node1"),
        (ALONE, "127.0.0.1"),
        (replace(ALONE, master_addr="good"), "127.0.0.1"),
        (replace(ALONE, source="torchrun"), "unknown"),
    ],
)
def test_an_address_is_kept_unless_the_ranks_of_srun_share_a_node(rank, expected):
    assert reachable(rank, names).master_addr == expected


@pytest.mark.parametrize("host", ["node1", "127.0.0.1", "nowhere"])
def test_an_address_that_other_nodes_cannot_reach_is_an_error(host):
    with pytest.raises(InvalidEnvironment, match=host) as error:
        reachable(replace(TWO_NODES, master_addr=host), names)
    assert error.value.allowed.startswith("MASTER_ADDR")
