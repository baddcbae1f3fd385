"""Rendezvous: how ranks find each other, and the rank consistency check before they train."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist

from gearshift.engines import environment
from gearshift.engines.base import EngineError, PeersMissing, World
from gearshift.engines.network import select_interface, use_loopback

TOKEN = "GEARSHIFT_RENDEZVOUS"
"""The variable with what only the ranks of one start share: no key without it counts."""
LOOPBACK = "127.0.0.1"
_BACKENDS = {
    "cpu": "gloo",
    # Both, so that tensors in host memory travel as well: offloaded shards, flags, sizes.
    "cuda": "cpu:gloo,cuda:nccl",
    "xpu": "cpu:gloo,xpu:xccl",
}
_RESULT_S = 5.0
_MAX_SHOWN = 8
# Of each rank its host, and the digest of its facts
_Peers = Mapping[int, tuple[str, str]]


def join_group(
    world: World, facts: Mapping[str, str], timeout_s: float
) -> tuple[dist.Store, dist.ProcessGroup]:
    """Join the process group, with ranks of the same `facts`. Collective.

    Returns the store of the ranks, and the group through which hosts send to each other. Raises
    EngineError if there is no group to join or ranks differ, and PeersMissing.
    """
    if dist.is_initialized():
        raise EngineError(
            "a process group is already open in this process; close it before a run starts"
        )
    kind = world.device.type
    backend = _BACKENDS.get(kind)
    if backend is None:
        raise EngineError(
            f"no process group backend for device {kind}; use engine local with one process, "
            "or device cpu"
        )

    timeout = timedelta(seconds=timeout_s)
    is_local = world.size == world.local_size
    store = open_store(world.rank, world.size, timeout, is_local)
    if is_local:
        use_loopback()
    else:
        select_interface(environment.variables()["MASTER_ADDR"])
    if world.size > 1:
        facts = {"torch": torch.__version__.partition("+")[0], "device": kind, **facts}
        check_ranks(store, world.rank, world.size, facts, timeout_s)
    try:
        dist.init_process_group(
            backend,
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=timeout,
            device_id=world.device if kind == "cuda" else None,
        )
    except (dist.DistError, RuntimeError) as error:
        raise PeersMissing(
            f"rank {world.rank} on {socket.gethostname()} could not join the other "
            f"{world.size - 1}: {error}"
        ) from error
    # Flags and barriers go from host to host, so that no rank waits for its device.
    hosts: Any = dist.group.WORLD
    if backend != "gloo":
        hosts = dist.new_group(backend="gloo", timeout=timeout)
    return store, hosts


def check_ranks(
    store: dist.Store, rank: int, size: int, facts: Mapping[str, str], timeout_s: float
) -> None:
    """Wait until all ranks have registered, and check that their `facts` are equal. Collective.

    Raises PeersMissing, which names the ranks that are missing after `timeout_s`, and EngineError
    with the facts in which ranks differ: on every rank.
    """
    text = json.dumps(dict(facts), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    keys = [f"peer/{number}" for number in range(size)]
    missing: list[int] = []
    try:
        store.set(f"facts/{digest}", text)
        store.set(keys[rank], json.dumps([socket.gethostname(), digest]))
        try:
            store.wait(keys, timedelta(seconds=timeout_s))
        except (dist.DistError, RuntimeError):
            missing = [number for number, key in enumerate(keys) if not store.check([key])]
        present = [number for number in range(size) if number not in missing]
        texts = store.multi_get([keys[number] for number in present])
        peers = dict(zip(present, map(json.loads, texts), strict=True))
        problem: Exception | None = PeersMissing(
            f"{_ranks(missing)} of {size} did not register within {timeout_s:g} s; "
            f"registered: {_hosts(peers)}"
        )
        if not missing:
            problem = _difference(store, peers)
        if problem:
            wait_for_readers(store, rank, len(present), _RESULT_S)
            raise problem
    except (dist.DistError, RuntimeError) as error:
        raise PeersMissing(
            f"rank {rank} on {socket.gethostname()} lost rank 0 during the rendezvous: {error}"
        ) from error


def wait_for_readers(store: dist.Store, rank: int, readers: int, limit_s: float) -> None:
    """Let rank 0, with which the store ends, wait until so many ranks have read it. Collective."""
    arrived = store.add("readers", 1)
    end = time.monotonic() + limit_s
    while rank == 0 and arrived < readers and time.monotonic() < end:
        time.sleep(0.02)
        arrived = store.add("readers", 0)


def open_store(rank: int, size: int, timeout: timedelta, is_local: bool = False) -> dist.Store:
    """The store through which ranks exchange addresses; empty at each attempt of torchrun.

    A key counts only with the token of these ranks. `is_local`: all ranks are on this machine, and
    no other machine can connect. Raises EngineError if the environment has no address or the port
    is in use, and PeersMissing if rank 0 does not answer within `timeout`.
    """
    if size == 1:
        return dist.HashStore()
    variables = environment.variables()
    address = variables.get("MASTER_ADDR")
    text = variables.get("MASTER_PORT")
    if not address or not text:
        raise EngineError(
            f"{size} processes cannot find each other: MASTER_ADDR and MASTER_PORT are not set; "
            "torchrun sets both"
        )
    if not text.isdigit():
        raise EngineError(f"MASTER_PORT={text} in the environment is not an integer")
    # torchrun's agent keeps one store through all restarts of the workers.
    agent_has_store = variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    token = variables.get(TOKEN, "")
    if is_local and not agent_has_store:
        address = LOOPBACK
    serves = rank == 0 and not agent_has_store
    try:
        store = tcp_store(address, int(text), is_master=serves, timeout=timeout)
    except (dist.DistError, RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        if serves:
            with socket.create_server(("", 0)) as server:
                free = server.getsockname()[1]
            raise EngineError(
                f"rank 0 on {socket.gethostname()} cannot open the rendezvous at "
                f"{address}:{text}: {reason}\n"
                "  cause         another job or program on this machine uses the port\n"
                f"  fix           export MASTER_PORT={free}"
            ) from error
        raise PeersMissing(
            f"rank {rank} on {socket.gethostname()} could not reach the rendezvous at "
            f"{address}:{text}: {reason}"
        ) from error
    # Restarted workers would find the addresses of the dead under the same keys and hang.
    attempt = variables.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"{token}/attempt-{attempt}", store)


def open_lines(store: dist.Store, rank: int, size: int, timeout_s: float) -> list[socket.socket]:
    """A line for datagrams to each other rank, all on this machine. Collective.

    One is heard by nobody else, and raises TimeoutError.
    """
    lines = {}
    for other in range(size):
        if other != rank:
            line = socket.socket(type=socket.SOCK_DGRAM)
            line.bind((LOOPBACK, 0))
            line.settimeout(timeout_s)
            _, port = line.getsockname()
            store.set(f"port/{rank}/{other}", str(port))
            lines[other] = line
    for other, line in lines.items():
        port = int(store.get(f"port/{other}/{rank}"))
        line.connect((LOOPBACK, port))
    return [*lines.values()]


def tcp_store(address: str, port: int, **options: Any) -> dist.TCPStore:
    """A TCPStore; that of a master at the loopback address listens there only.

    torch alone would listen at all addresses of the machine. Port 0: any free one.
    """
    if address == LOOPBACK and options.get("is_master"):
        with socket.create_server((address, port)) as server:
            port = server.getsockname()[1]
            options["master_listen_fd"] = os.dup(server.fileno())  # the store closes it
    return dist.TCPStore(address, port, wait_for_workers=False, **options)


def _difference(store: dist.Store, peers: _Peers) -> EngineError | None:
    """An error with the facts in which ranks differ; None: they are equal."""
    by_digest = defaultdict(list)
    for rank, (_, digest) in peers.items():
        by_digest[digest].append(rank)
    if len(by_digest) == 1:
        return None
    (digest, _), (other_digest, ranks), *_ = by_digest.items()
    expected = json.loads(store.get(f"facts/{digest}"))
    other = json.loads(store.get(f"facts/{other_digest}"))
    lines = []
    for name in {**expected, **other}:
        value = expected.get(name, "unset")
        other_value = other.get(name, "unset")
        if value != other_value:
            lines.append(f"{name} {other_value} instead of {value}")
    hosts = _hosts({rank: peers[rank] for rank in ranks})
    return EngineError(
        f"ranks have different settings: {hosts}: {'; '.join(lines[:_MAX_SHOWN])} as on rank 0 "
        f"({peers[0][0]}); start every node with the same command and environment"
    )


def _hosts(peers: _Peers) -> str:
    """`node1 (ranks 0, 1), node2 (rank 2)`."""
    by_host = defaultdict(list)
    for rank, (host, _) in peers.items():
        by_host[host].append(rank)
    shown = islice(by_host.items(), _MAX_SHOWN)
    return ", ".join(f"{host} ({_ranks(ranks)})" for host, ranks in shown)


def _ranks(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 1, 4`."""
    most = 4 * _MAX_SHOWN
    noun = "rank" if len(ranks) == 1 else "ranks"
    more = " and more" if len(ranks) > most else ""
    return f"{noun} {', '.join(map(str, ranks[:most]))}{more}"
