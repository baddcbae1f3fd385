"""An address of rank 0 that other nodes can reach, checked before ranks wait for it."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace

from gearshift.slurm import queue
from gearshift.slurm.environment import InvalidEnvironment, RankEnvironment
from gearshift.slurm.variables import first_host

_SCONTROL_S = 20.0
_LOOPBACK = "127.0.0.1"

Resolve = Callable[[str], list[str]]
"""Gives the addresses of a name; empty: it has none."""


def resolve(name: str) -> list[str]:
    """The addresses of `name` on this machine. May query a name server."""
    try:
        entries = socket.getaddrinfo(name, None)
    except OSError:
        return []
    return [str(entry[4][0]) for entry in entries]


def node_address(name: str) -> str | None:
    """Slurm's address of the node `name`; None: unknown. Runs scontrol."""
    try:
        result = queue.run("scontrol", "show", "node", "-o", name, timeout_s=_SCONTROL_S)
    except queue.QueueError:
        return None
    match = re.search(r"\bNodeAddr=(\S+)", result.stdout)
    return match[1] if match else None


def reachable(
    ranks: RankEnvironment,
    environ: Mapping[str, str],
    resolve: Resolve = resolve,
    node_address: Callable[[str], str | None] = node_address,
) -> RankEnvironment:
    """`ranks` with an address at which this node can reach rank 0.

    Some systems resolve their own name to 127.0.1.1, and some nodes cannot resolve the names of
    others: then Slurm's address is used. Raises InvalidEnvironment if that is missing too.
    """
    is_srun = ranks.source == "srun"
    if not ranks.spans_nodes:
        return replace(ranks, master_addr=_LOOPBACK) if is_srun else ranks
    host = ranks.master_addr
    addresses = resolve(host)
    if not _are_loopback(addresses):
        return ranks
    is_loopback_name = host in addresses or host == "localhost"
    if addresses and ranks.node == 0 and not is_loopback_name:
        return ranks  # on its own node a name may resolve to a loopback address
    if is_srun:
        for address in _slurm_addresses(environ, node_address):
            if not _are_loopback(resolve(address)):
                return replace(ranks, master_addr=address)

    if is_loopback_name:
        reason = "a loopback address, which other nodes cannot reach"
    elif addresses:
        reason = f"which resolves to the loopback address {addresses[0]} on {socket.gethostname()}"
    else:
        reason = f"which {socket.gethostname()} cannot resolve"
    name = "MASTER_ADDR" if environ.get("MASTER_ADDR") else "the host of rank 0"
    count = f"{ranks.local_size} of {ranks.world_size} ranks run on this node"
    raise InvalidEnvironment(
        f"{name}={host}, {reason}; {count}",
        "MASTER_ADDR: an address of rank 0's node that all nodes can reach, such as NodeAddr of "
        " scontrol show node",
    )


def _slurm_addresses(
    environ: Mapping[str, str], node_address: Callable[[str], str | None]
) -> list[str]:
    """Slurm's addresses of the first node of the step."""
    of_job = environ.get("SLURM_JOB_NODELIST", "")
    first = first_host(environ.get("SLURM_STEP_NODELIST") or of_job)
    addresses = [node_address(first)] if first else []
    # A batch script, and the srun in it, runs on the first node of its job.
    if environ.get("ENVIRONMENT") == "BATCH" and first == first_host(of_job):
        addresses.append(environ.get("SLURM_LAUNCH_NODE_IPADDR"))
    return [address for address in addresses if address]


def _are_loopback(addresses: list[str]) -> bool:
    """Whether all are; no address is one of other nodes, either."""
    return all(ipaddress.ip_address(text.partition("%")[0]).is_loopback for text in addresses)
