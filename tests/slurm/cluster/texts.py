"""The files of a cluster as text: slurm.conf, gres.conf, hosts, the commands."""

import getpass
from pathlib import Path

SUBNET = "10.231.77"
"""The subnet of the bridge between nodes; it exists in the head's namespace only."""

HEAD = f"{SUBNET}.254"
NODES = (1, 2)
GPUS = 2
"""Of each node, and without devices: Slurm only counts them."""

COMMANDS = ("sbatch", "srun", "salloc", "squeue", "sinfo", "scontrol", "scancel")


def slurm_conf(folder, extra):
    """Partitions over all nodes, where `urgent` preempts `normal` and `abrupt`.

    Times are short for tests; Slurm's own default is noted beside each. `extra` are the last lines:
    a repeated key overrides.
    """
    lines = [
        "ClusterName=test",
        f"SlurmctldHost=head({HEAD})",
        "SlurmctldPort=6817",
        "SlurmdPort=6818",
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
        "SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0",
        "JobRequeue=1",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        *(
            f"NodeName=node{number} NodeAddr={SUBNET}.{number} CPUs=8 RealMemory=4000"
            f" Gres=gpu:{GPUS} State=UNKNOWN"
            for number in NODES
        ),
        "PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE DefaultTime=10",
        "PartitionName=normal Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=10",
        "PartitionName=abrupt PriorityTier=1 PreemptMode=REQUEUE GraceTime=0",
        "PartitionName=urgent PriorityTier=10 PreemptMode=OFF",
        *extra,
    ]
    return "\n".join(lines) + "\n"


def gres_conf(folder):
    """The device files that count as GPUs."""
    return f"NodeName=node[1-{len(NODES)}] Name=gpu File={folder}/dev/gpu[0-{GPUS - 1}]\n"


def hosts():
    """/etc/hosts of the head and of every node."""
    nodes = [f"{SUBNET}.{n} node{n}" for n in NODES]
    return "\n".join(["127.0.0.1 localhost", f"{HEAD} head", *nodes]) + "\n"


def command(real, folder):
    """A script that replaces one of Slurm's commands.

    Called outside it enters the head's network, where names and addresses of the cluster
    are valid; inside a job it just runs.
    """
    outside = Path("/proc/self/ns/net").readlink()
    return f"""#!/bin/sh
export SLURM_CONF={folder}/slurm.conf
if [ "$(readlink /proc/self/ns/net)" = "{outside}" ]; then
    exec nsenter --target "$(cat "{folder}/run/head")" --net --uts -- {real} "$@"
fi
exec {real} "$@"
"""
