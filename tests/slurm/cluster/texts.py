"""The files of a cluster as text: slurm.conf, gres.conf, hosts, the commands."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path

from tests.slurm.cluster.shape import Shape

SUBNET = "10.231.77"
"""The subnet of the bridge between nodes; it exists in the head's namespace only."""

HEAD = f"{SUBNET}.254"
COMMANDS = ("sbatch", "srun", "salloc", "squeue", "sinfo", "scontrol", "scancel")


def slurm_conf(shape: Shape, folder: Path) -> str:
    """Two partitions over all nodes, where `urgent` preempts `normal` and `abrupt`.

    Times are short for tests; Slurm's own default is noted beside each.
    """
    lines = [
        "ClusterName=test",
        f"SlurmctldHost={_controller(shape)}",
        f"SlurmctldPort={shape.ports[0]}",
        f"SlurmdPort={shape.ports[1]}",
        f"SlurmUser={getpass.getuser()}",
        f"SlurmdUser={getpass.getuser()}",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        # A requeued job waits until its old credential has expired: 121 s by default, 6 s so.
        f"AuthInfo=socket={folder}/run/munge.sock,cred_expire=5",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool.%n",
        f"SlurmctldPidFile={folder}/run/slurmctld.pid",
        f"SlurmdPidFile={folder}/run/slurmd.%n.pid",
        f"SlurmctldLogFile={folder}/log/slurmctld.log",
        f"SlurmdLogFile={folder}/log/slurmd.%n.log",
        "SlurmctldDebug=verbose",
        "SlurmdDebug=verbose",
        # Settings that need neither systemd nor control groups.
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU",
        "SlurmdParameters=config_overrides",
        "GresTypes=gpu",
        "ReturnToService=2",
        "KillWait=5",  # 30: between SIGTERM and SIGKILL
        "SlurmdTimeout=8",  # 300: until a silent node is DOWN
        "SlurmctldTimeout=5",  # 120
        "MessageTimeout=5",  # 10
        "MinJobAge=3600",  # 300: how long a finished job can be shown
        "InactiveLimit=0",
        # 60: a step that cannot report its end to an absent controller would drain its node.
        "UnkillableStepTimeout=600",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,"
        "sched_min_interval=0",
        "JobRequeue=1",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        *(_node(shape, number) for number in range(1, shape.nodes + 1)),
        "PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE DefaultTime=10",
        "PartitionName=normal Default=YES PriorityTier=1 PreemptMode=REQUEUE"
        f" GraceTime={shape.grace_seconds}",
        "PartitionName=abrupt PriorityTier=1 PreemptMode=REQUEUE GraceTime=0",
        "PartitionName=urgent PriorityTier=10 PreemptMode=OFF",
        *shape.extra,
    ]
    return "\n".join(lines) + "\n"


def gres_conf(shape: Shape, folder: Path) -> str:
    """The device files that count as GPUs; empty without any."""
    if not shape.gpus:
        return ""
    files = f"{folder}/dev/gpu[0-{shape.gpus - 1}]"
    return f"NodeName=node[1-{shape.nodes}] Name=gpu File={files}\n"


def hosts(shape: Shape) -> str:
    """/etc/hosts of the head and of every node."""
    nodes = [f"{SUBNET}.{n} node{n}" for n in range(1, shape.nodes + 1)]
    return "\n".join(["127.0.0.1 localhost", f"{HEAD} head", *nodes]) + "\n"


def command(real: str, folder: Path, enter_head: bool) -> str:
    """A script that replaces one of Slurm's commands.

    Called outside it enters the head's network, where names and addresses of the cluster
    are valid; inside a job it just runs.
    """
    lines = ["#!/bin/sh", f"export SLURM_CONF={folder}/slurm.conf"]
    if enter_head:
        outside = Path("/proc/self/ns/net").readlink()
        lines += [
            f'if [ "$(readlink /proc/self/ns/net)" = "{outside}" ]; then',
            f'    head=$(cut -d" " -f1 "{folder}/pids/head")',
            f'    exec nsenter --target "$head" --net --uts -- {real} "$@"',
            "fi",
        ]
    return "\n".join([*lines, f'exec {real} "$@"']) + "\n"


def _controller(shape: Shape) -> str:
    if shape.network == "netns":
        return f"head({HEAD})"
    return f"{_this_host()}(127.0.0.1)"


def _node(shape: Shape, number: int) -> str:
    if shape.network == "netns":
        address = f"NodeAddr={SUBNET}.{number}"
    else:
        address = f"NodeHostname={_this_host()} NodeAddr=127.0.0.1 Port={shape.ports[number]}"
    gpus = f" Gres=gpu:{shape.gpus}" if shape.gpus else ""
    return f"NodeName=node{number} {address} CPUs={shape.cpus} RealMemory=4000{gpus} State=UNKNOWN"


def _this_host() -> str:
    return socket.gethostname().split(".")[0]
