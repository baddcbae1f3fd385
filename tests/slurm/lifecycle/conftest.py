"""One cluster for all cases that do not damage its nodes, and an uninterrupted run."""

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.slurm.cluster.cluster import Cluster, missing
from tests.slurm.login import make_login


@contextmanager
def clustered(*extra):
    """A cluster in a short folder; stopped at the end, or killed with this process.

    `extra` are lines for slurm.conf.
    """
    if problem := missing():
        pytest.skip(problem)
    folder = Path(tempfile.mkdtemp(prefix="gs-", dir="/tmp"))
    cluster = Cluster(folder, extra)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def peaceful():
    """Two nodes that no test damages."""
    with clustered() as up:
        yield up


@pytest.fixture(scope="module")
def login(peaceful, tmp_path_factory):
    """A login node's folder of the module's own."""
    return make_login(peaceful, tmp_path_factory.mktemp("login"))


@pytest.fixture(scope="session")
def unbroken(peaceful, tmp_path_factory):
    """`sbatch slurm/fast.sbatch` over two nodes, to its end, uninterrupted."""
    job = make_login(peaceful, tmp_path_factory.mktemp("unbroken")).sbatch("fast", "run")
    job.wait("COMPLETED")
    return job


@contextmanager
def occupied(login, node):
    """A job of the partition `urgent` takes a node and preempts the jobs there."""
    hold = ("--parsable", "-p", "urgent", "--exclusive", f"--nodelist={node}", "-o", "/dev/null")
    number = login.type("sbatch", *hold, "--wrap", "sleep 600")
    try:
        yield
    finally:
        login.type("scancel", "--signal=KILL", "--full", number)
        login.type("scancel", number)


def differences(job, other, rounding=0.0):
    """Differences of the loss history of `job` from that of `other`, gaps and repeats included.

    `rounding` is relative; 0 asks for the same bits.
    """
    wanted = other.losses
    found = []
    if job.steps != list(wanted):
        found.append(f"steps {job.steps}, not {list(wanted)}")
    for step, loss in job.losses.items():
        if abs(loss - wanted.get(step, 0)) > rounding * abs(loss):
            found.append(f"step {step}: {loss!r}, not {wanted.get(step)!r}")
    if _evaluations(job) != _evaluations(other):
        found.append(f"evaluated at {_evaluations(job)}, not at {_evaluations(other)}")
    return found[:5]


def _evaluations(job):
    return [line["step"] for line in job.lines("eval")]
