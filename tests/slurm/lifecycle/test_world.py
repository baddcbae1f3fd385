"""Ranks on two nodes find each other under any starter, or report why they cannot."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.runs.conftest import losses
from tests.slurm.cluster.texts import SUBNET
from tests.slurm.login import make_login

LAUNCHER = f"exec {sys.executable} -m launcher"
TORCHRUN = f"exec {sys.executable} -m torch.distributed.run"
STEPS = 3


@pytest.fixture(scope="module")
def login(cluster, tmp_path_factory):
    return make_login(cluster, tmp_path_factory.mktemp("login"))


def over_two_nodes(login, shell, *options, **environment):
    """The output of a shell run as one task on each of two nodes. RuntimeError if it fails."""
    same_environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": ""}
    command = ("srun", "--nodes=2", "--ntasks-per-node=1", "--overlap", "--kill-on-bad-exit=1")
    return login.type(*command, *options, "bash", "-c", shell, environment=same_environment | environment)


def training(login, run, **settings):
    """The arguments of a short training into the folder `run`."""
    return " ".join([*login.training(STEPS, settings), "--out", run])


def error_text(login, command, *options, **environment):
    """The error text of two ranks that cannot start."""
    with pytest.raises(RuntimeError) as error:
        over_two_nodes(login, f"{LAUNCHER} {command}", *options, **environment)
    return str(error.value)


def private_hosts_script(folder):
    """Shell code that resolves each node's own name to 127.0.1.1, as Debian's installer does."""
    path = folder / "hosts.$SLURMD_NODENAME"
    return (
        f"sed s/{SUBNET}.$((SLURM_NODEID+1))/127.0.1.1/ /etc/hosts > {path}; mount --bind {path} /etc/hosts; "
    )


@pytest.mark.slow
def test_nodes_that_resolve_themselves_to_127_train_together(login):
    fix = private_hosts_script(login.folder)
    script = login.folder / "named.sh"
    script.write_text(f"{fix}getent hosts $(hostname)\n{LAUNCHER} {training(login, 'named')}\n")
    # A mount namespace for each task, so that other tests have the original hosts file.
    output = over_two_nodes(login, f"exec unshare --mount bash {script}")
    assert output.count("127.0.1.1") == 2
    assert len(losses(login.folder / "named")) == STEPS


@pytest.fixture(scope="module")
def under_srun(login):
    """The losses of two ranks started by srun, one on each node."""
    over_two_nodes(login, f"{LAUNCHER} {training(login, 'srun')}")
    return losses(login.folder / "srun")


@pytest.mark.slow
def test_torchrun_on_two_nodes_trains_as_srun_does(login, under_srun):
    rendezvous = "--nnodes=2 --nproc-per-node=1 --node-rank=$SLURM_NODEID "
    rendezvous += "--rdzv-backend=c10d --rdzv-endpoint=node1:29412 --rdzv-id=7"
    over_two_nodes(login, f"{TORCHRUN} {rendezvous} -m launcher {training(login, 'torchrun')}")
    assert losses(login.folder / "torchrun") == under_srun
    assert len(under_srun) == STEPS


@pytest.mark.slow
def test_two_steps_at_once_on_the_same_nodes_both_train(login):
    def one(run):
        over_two_nodes(login, f"{LAUNCHER} {training(login, run)}")

    with ThreadPoolExecutor(2) as both:
        list(both.map(one, ["left", "right"]))
    assert losses(login.folder / "left") == losses(login.folder / "right") != []


@pytest.mark.slow
def test_a_rank_that_never_connects_is_named(login):
    command = training(login, "alone", **{"engine.timeout_s": "4"})
    named = r"error: rank 1 of 2 did not register within 4 s; registered: node1 \(rank 0\)"
    with pytest.raises(RuntimeError, match=named):
        over_two_nodes(login, f"[ $SLURM_PROCID = 0 ] || exec sleep 60; {LAUNCHER} {command}")


@pytest.mark.slow
def test_nodes_with_different_arguments_are_named_with_the_difference(login):
    command = training(login, "unlike") + " --seed $((5+SLURM_NODEID))"
    text = error_text(login, command)
    assert "node2 (rank 1): train.seed 6 instead of 5 as on rank 0 (node1)" in text


@pytest.mark.slow
def test_a_missing_network_interface_of_a_node_is_named(login):
    text = error_text(login, training(login, "ib"), GLOO_SOCKET_IFNAME="ib7")
    assert "GLOO_SOCKET_IFNAME=ib7: node" in text
    assert f"has no interface ib7; available: lo (127.0.0.1), eth0 ({SUBNET}." in text
