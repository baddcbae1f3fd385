"""An address of rank 0 that other nodes can reach, checked before ranks wait for it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import replace

from gearshift.slurm.environment import InvalidEnvironment, RankEnvironment

_LOOPBACK = "127.0.0.1"


def resolve(name: str) -> list[str]:
    """The addresses of `name` on this machine. May query a name server."""
    try:
        entries = socket.getaddrinfo(name, None)
    except OSError:
        return []
    return [str(entry[4][0]) for entry in entries]


def reachable(
    ranks: RankEnvironment, resolve: Callable[[str], list[str]] = resolve
) -> RankEnvironment:
    """`ranks` with an address at which this node can reach rank 0.

    Some nodes resolve their own name to 127.0.1.1, and some cannot resolve the names of others.
    slurm/job.sh looks for another address; here it is an error. Raises InvalidEnvironment.
    """
    if not ranks.spans_nodes:
        is_srun = ranks.source == "srun"
        return replace(ranks, master_addr=_LOOPBACK) if is_srun else ranks
    host = ranks.master_addr
    addresses = resolve(host)
    if any(not ipaddress.ip_address(text.partition("%")[0]).is_loopback for text in addresses):
        return ranks
    is_loopback_name = host in addresses or host == "localhost"
    if addresses and ranks.node == 0 and not is_loopback_name:
        return ranks  # on its own node a name may resolve to a loopback address
    raise InvalidEnvironment(
        f"the host of rank 0, {host}, has no address that other nodes can reach "
        f"on {socket.gethostname()}: {', '.join(addresses) or 'none'}",
        "MASTER_ADDR: an address of rank 0's node that all nodes can reach, such as NodeAddr of "
        " scontrol show node",
    )
