"""A real cluster for tests, and the jobs submitted to it."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.slurm.cluster.cluster import Cluster, missing


@contextmanager
def clustered(*extra):
    """A cluster in a short folder; stopped at the end, or with this process.

    `extra` are lines for slurm.conf.
    """
    if problem := missing():
        pytest.skip(problem)
    folder = Path(tempfile.mkdtemp(prefix="gs-", dir="/tmp"))
    cluster = Cluster(folder, extra)
    try:
        cluster.up(owner=os.getpid())
        yield cluster
    finally:
        cluster.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster():
    """Two idle nodes; `urgent` preempts `normal` after 10 s of grace and `abrupt` at once."""
    with clustered() as up:
        yield up
