"""Ranks on two nodes find each other under any starter, or report why they cannot."""

import sys

import pytest

from tests.runs.conftest import losses

PYTHON = f"exec {sys.executable}"
STEPS = 3
pytestmark = pytest.mark.slow


def over_two_nodes(login, shell, *options, **environment):
    """The output of a shell run as one task on each of two nodes. RuntimeError if it fails."""
    same_environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": ""}
    command = ("srun", "--nodes=2", "--ntasks-per-node=1", "--overlap", "--kill-on-bad-exit=1")
    return login.type(*command, *options, "bash", "-c", shell, environment=same_environment | environment)


def training(login, run, **settings):
    """The command of a short training into the folder `run`."""
    return " ".join(["-m launcher", *login.training(STEPS, settings), "--out", run])


def test_torchrun_on_two_nodes_trains_as_srun_does(login):
    over_two_nodes(login, f"{PYTHON} {training(login, 'srun')}")
    rendezvous = "--nnodes=2 --nproc-per-node=1 --node-rank=$SLURM_NODEID "
    rendezvous += "--rdzv-backend=c10d --rdzv-endpoint=node1:29412 --rdzv-id=7"
    over_two_nodes(login, f"{PYTHON} -m torch.distributed.run {rendezvous} {training(login, 'torchrun')}")
    assert losses(login.folder / "torchrun") == losses(login.folder / "srun") != []


def test_a_rank_that_never_connects_is_named(login):
    command = training(login, "alone", **{"engine.timeout_s": "4"})
    named = r"error: rank 1 of 2 did not register within 4 s; registered: node1 \(rank 0\)"
    with pytest.raises(RuntimeError, match=named):
        over_two_nodes(login, f"[ $SLURM_PROCID = 0 ] || exec sleep 60; {PYTHON} {command}")


def test_nodes_with_different_arguments_are_named_with_the_difference(login):
    command = training(login, "unlike") + " --seed $((5+SLURM_NODEID))"
    named = r"node2 \(rank 1\): train.seed 6 instead of 5 as on rank 0 \(node1\)"
    with pytest.raises(RuntimeError, match=named):
        over_two_nodes(login, f"{PYTHON} {command}")
