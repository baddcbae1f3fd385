"""Ranks on two nodes find each other under any starter."""

import sys

import pytest

from tests.runs.conftest import losses

PYTHON = f"exec {sys.executable}"
pytestmark = pytest.mark.slow


def over_two_nodes(login, shell):
    """Run a shell as one task on each of two nodes."""
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": ""}
    command = ("srun", "--nodes=2", "--ntasks-per-node=1", "--overlap", "--kill-on-bad-exit=1")
    login.type(*command, "bash", "-c", shell, environment=environment)


def training(login, run):
    """The command of a short training into the folder `run`."""
    return " ".join(["-m launcher", *login.training(3, {}), "--out", run])


def test_torchrun_on_two_nodes_trains_as_srun_does(login):
    over_two_nodes(login, f"{PYTHON} {training(login, 'srun')}")
    rendezvous = "--nnodes=2 --nproc-per-node=1 --node-rank=$SLURM_NODEID "
    rendezvous += "--rdzv-backend=c10d --rdzv-endpoint=node1:29412 --rdzv-id=7"
    over_two_nodes(
        login, f"{PYTHON} -m torch.distributed.run {rendezvous} {training(login, 'torchrun')}"
    )
    assert losses(login.folder / "torchrun") == losses(login.folder / "srun") != []
