"""An address of rank 0 that other nodes can reach, checked before ranks wait for it."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace

from gearshift.slurm import queue
from gearshift.slurm.environment import InvalidEnvironment, RankEnvironment, first_host

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
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def node_address(name: str) -> str | None:
    """Slurm's address of the node `name`; None: unknown. Runs scontrol."""
    try:
        done = queue.run("scontrol", "show", "node", "-o", name, timeout_s=_SCONTROL_S)
    except queue.QueueError:
        return None
    match = re.search(r"\bNodeAddr=(\S+)", done.stdout)
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
    given = ranks.master_addr
    if not ranks.spans_nodes:
        return replace(ranks, master_addr=_LOOPBACK) if ranks.source == "srun" else ranks
    addresses = resolve(given)
    if any(not _is_loopback(address) for address in addresses):
        return ranks
    if addresses and ranks.node == 0 and given not in addresses and given != "localhost":
        return ranks  # on its own node a name may resolve to a loopback address
    for address in _slurm_addresses(environ, node_address) if ranks.source == "srun" else []:
        if not all(_is_loopback(resolved) for resolved in resolve(address)):
            return replace(ranks, master_addr=address)
    raise _unreachable(ranks, environ, addresses)


def _slurm_addresses(
    environ: Mapping[str, str], node_address: Callable[[str], str | None]
) -> list[str]:
    """Slurm's addresses of the first node of the step."""
    of_step = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    first = first_host(of_step)
    addresses = [node_address(first)] if first else []
    # A batch script, and the srun in it, runs on the first node of its job.
    is_batch = environ.get("ENVIRONMENT") == "BATCH"
    if is_batch and first == first_host(environ.get("SLURM_JOB_NODELIST", "")):
        addresses.append(environ.get("SLURM_LAUNCH_NODE_IPADDR"))
    return [address for address in addresses if address]


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _unreachable(
    ranks: RankEnvironment, environ: Mapping[str, str], addresses: list[str]
) -> InvalidEnvironment:
    given = ranks.master_addr
    if given in addresses or given == "localhost":
        reason = "a loopback address, which other nodes cannot reach"
    elif addresses:
        reason = f"which resolves to the loopback address {addresses[0]} on {socket.gethostname()}"
    else:
        reason = f"which {socket.gethostname()} cannot resolve"
    name = "MASTER_ADDR" if environ.get("MASTER_ADDR") else "the host of rank 0"
    return InvalidEnvironment(
        f"{name}={given}, {reason}; {ranks.local_size} of {ranks.world_size} ranks run on this node",
        "MASTER_ADDR: an address of rank 0's node that all nodes can reach, such as NodeAddr of "
        " scontrol show node",
    )
