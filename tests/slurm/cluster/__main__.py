"""The test cluster by hand: `python -m tests.slurm.cluster VERB FOLDER [NUMBER]`.

    up FOLDER            start two nodes and wait until they are idle
    env FOLDER           what a shell must `eval` so that sbatch, squeue, … mean this cluster
    run FOLDER COMMAND…  up, the command, and down whatever happens
    down FOLDER          end it, and remove the folder
    node-kill | slurmd-kill | link-down | link-up | node-up  FOLDER NUMBER
    controller-kill | controller-up  FOLDER

FOLDER is a short path, such as /tmp/cluster-1. `--network`, `--grace`, `--gpus`, `--nodes` and
`--extra LINE` (for slurm.conf) shape a cluster that is started.
"""

from __future__ import annotations

import argparse
import os
import select
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.slurm.cluster.cluster import Cluster
from tests.slurm.cluster.shape import load, shaped

STARTING = ("up", "run")
NODE_VERBS = ("node-kill", "slurmd-kill", "link-down", "link-up", "node-up")
VERBS = (*STARTING, "env", "down", *NODE_VERBS, "controller-kill", "controller-up", "watch")


def main(argv: list[str]) -> int:
    """Run the command; gives the exit code."""
    args = _parser().parse_args(argv)
    folder = Path(args.folder)
    if args.verb in STARTING:
        folder.mkdir(parents=True, exist_ok=True)
        extra = tuple(args.extra)
        shape = shaped(args.network, args.nodes, args.gpus, args.grace, extra)
    else:
        shape = load(folder)
    cluster = Cluster(folder, shape)
    if args.verb == "run":
        return _run(cluster, args.rest)
    if args.verb in NODE_VERBS:
        _fail_node(cluster, args.verb, int(args.rest[0]))
    elif args.verb == "up":
        cluster.up()
    elif args.verb == "env":
        environment = cluster.environment
        print(
            f"export PATH={shlex.quote(environment['PATH'])} SLURM_CONF={environment['SLURM_CONF']}"
        )
    elif args.verb == "controller-kill":
        cluster.kill_controller()
    elif args.verb == "controller-up":
        cluster.start_controller()
    else:
        if args.verb == "watch":
            _wait_for_end(int(args.rest[0]))
        cluster.down()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=("auto", "netns", "loopback"), default="auto")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--grace", type=int, default=10, metavar="SECONDS")
    parser.add_argument("--extra", action="append", default=[], metavar="LINE")
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("folder")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    return parser


def _fail_node(cluster: Cluster, verb: str, number: int) -> None:
    if verb == "node-kill":
        cluster.machines.cut_power(number)
    elif verb == "slurmd-kill":
        cluster.machines.kill_slurmd(number)
    elif verb == "node-up":
        cluster.restore_node(number)
    else:
        cluster.machines.set_link(number, verb.removeprefix("link-"))


def _run(cluster: Cluster, argv: list[str]) -> int:
    cluster.up(owner=os.getpid())
    try:
        return subprocess.run(argv, env=cluster.environment).returncode
    finally:
        cluster.down()
        shutil.rmtree(cluster.folder, ignore_errors=True)


def _wait_for_end(pid: int) -> None:
    """Return when the process has ended."""
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([end], [], [])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
