"""The address of rank 0, seen to before anybody waits for it: other nodes can reach it."""

from __future__ import annotations

import ipaddress
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace

from slurm.environment import InvalidEnvironment, RankEnvironment, first_host

_SCONTROL_S = 20.0
_LOOPBACK = "127.0.0.1"

Resolve = Callable[[str], list[str]]
"""The addresses of a name; none where it has none."""


def resolve(name: str) -> list[str]:
    """The addresses of `name` as this machine sees it. May ask a name server."""
    try:
        return list(dict.fromkeys(str(one[4][0]) for one in socket.getaddrinfo(name, None)))
    except OSError:
        return []


def node_address(name: str) -> str | None:
    """The address that Slurm has of the node `name`; None: it does not tell. Runs scontrol."""
    if shutil.which("scontrol") is None:
        return None
    words = ["scontrol", "show", "node", "-o", name]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SCONTROL_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\bNodeAddr=(\S+)", done.stdout)
    return found[1] if found else None


def reachable(
    place: RankEnvironment,
    environ: Mapping[str, str],
    resolve: Resolve = resolve,
    node_address: Callable[[str], str | None] = node_address,
) -> RankEnvironment:
    """`place` with an address of rank 0 that this node can reach it by.

    Some systems call themselves 127.0.1.1, and some nodes know no names of others: what Slurm
    knows is then taken. Raises EnvironmentFault where that does not help either.
    """
    given = place.master_addr
    if not place.spans_nodes:
        here = place.source == "srun" and not environ.get("MASTER_ADDR")
        return replace(place, master_addr=_LOOPBACK) if here else place
    found = resolve(given)
    if any(not _is_loopback(address) for address in found):
        return place
    if found and place.node == 0 and given not in found and given != "localhost":
        return place  # on its own node a name may mean the node itself
    for address in _told_by_slurm(environ, node_address) if place.source == "srun" else []:
        if any(not _is_loopback(one) for one in resolve(address)):
            return replace(place, master_addr=address)
    raise _unreachable(place, environ, found)


def _told_by_slurm(
    environ: Mapping[str, str], node_address: Callable[[str], str | None]
) -> list[str]:
    """Addresses of the first node of the step, from where nodes need not know names."""
    of_step = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    first = first_host(of_step)
    told = [node_address(first)] if first else []
    # A batch script runs on the first node of its job, and so does the srun in it.
    is_batch = environ.get("ENVIRONMENT") == "BATCH"
    if is_batch and first == first_host(environ.get("SLURM_JOB_NODELIST", "")):
        told.append(environ.get("SLURM_LAUNCH_NODE_IPADDR"))
    return [address for address in told if address]


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _unreachable(
    place: RankEnvironment, environ: Mapping[str, str], found: list[str]
) -> InvalidEnvironment:
    given = place.master_addr
    if given in found or given == "localhost":
        wrong = "which other nodes cannot reach"
    elif found:
        wrong = f"which is {found[0]} on {socket.gethostname()}, this node itself"
    else:
        wrong = f"a name that {socket.gethostname()} does not know"
    name = "MASTER_ADDR" if environ.get("MASTER_ADDR") else "the host of rank 0"
    return InvalidEnvironment(
        f"{name}={given}, {wrong}, for {place.world_size} ranks of which "
        f"{place.local_size} are on this node",
        "MASTER_ADDR as an address of rank 0's node that all nodes reach, such as the NodeAddr of "
        " scontrol show node",
    )
