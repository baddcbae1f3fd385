"""Rendezvous: how ranks find each other, and the rank consistency check before they train."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from engines import environment
from engines.base import EngineError, PeersMissing

PORTS = 8
"""Ports in a row that are tried, because another job may use the first one."""
TOKEN = "GEARSHIFT_RENDEZVOUS"
"""The variable with what only the ranks of one start share: no key without it counts."""
LOOPBACK = "127.0.0.1"
_CONNECT_S = 2.0
_FOREIGN_S = 5.0
_RESULT_S = 5.0
_MAX_SHOWN = 8


@dataclass(frozen=True)
class Peer:
    """The registration of a rank."""

    host: str
    digest: str
    """Of its facts; ranks with the same facts have the same digest."""
    device: str
    """The id of hardware that two ranks must not share; empty: they may."""


def check_ranks(
    store: dist.Store, rank: int, size: int, facts: Mapping[str, str], device: str, timeout_s: float
) -> None:
    """Wait until all ranks have registered, and check that their `facts` are equal. Collective.

    Rank 0 reads all registrations in one request and publishes the result: a few milliseconds for
    a few ranks. Raises PeersMissing, which names the ranks that are missing after `timeout_s`, and
    EngineError with the facts in which ranks differ, or the device that two of them share.
    """
    text = json.dumps(dict(facts), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    store.set(f"facts/{digest}", text)
    store.set(f"peer/{rank}", json.dumps([socket.gethostname(), digest, device]))
    if rank == 0:
        problem, missing = _check_peers(store, size, timeout_s)
        store.set("result", json.dumps([problem, missing]))
        if problem:
            _wait_for_readers(store, size - 1 - len(missing))
    else:
        problem, missing = _read_result(store, rank, timeout_s)
    if problem:
        raise PeersMissing(problem) if missing else EngineError(problem)


def open_store(rank: int, size: int, timeout: timedelta, is_local: bool = False) -> dist.Store:
    """The store through which ranks exchange addresses; empty at each attempt of torchrun.

    `is_local`: all ranks are on this machine, and no other machine can connect. Raises EngineError
    if the environment has no address or the port is in use, and PeersMissing if rank 0 does not
    answer within `timeout`.
    """
    if size == 1:
        return dist.HashStore()
    variables = environment.variables()
    address, text = variables.get("MASTER_ADDR"), variables.get("MASTER_PORT")
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
    endpoint = _Endpoint(address, int(text), "" if agent_has_store else token)
    try:
        if rank == 0 and not agent_has_store:
            store = endpoint.open(timeout)
        else:
            store = endpoint.connect(rank, timeout)
    except (dist.DistError, RuntimeError) as error:
        raise PeersMissing(
            f"rank {rank} on {socket.gethostname()} could not reach the rendezvous at "
            f"{address}:{text}: {error}"
        ) from error
    # Restarted workers would find the addresses of the dead under the same keys and hang.
    attempt = variables.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"{token}/attempt-{attempt}", store)


def tcp_store(address: str, port: int, **options: Any) -> dist.TCPStore:
    """A TCPStore, also of a torch that was built without libuv, as Debian's is.

    The store of a master at the loopback address listens there only; torch alone would listen at
    all addresses of the machine. Port 0: any free one.
    """
    if address == LOOPBACK and options.get("is_master"):
        with socket.create_server((address, port)) as server:
            port = server.getsockname()[1]
            options["master_listen_fd"] = os.dup(server.fileno())  # the store closes it
    try:
        return dist.TCPStore(address, port, **options)
    except RuntimeError as error:
        if "without libuv" not in str(error):
            raise
        return dist.TCPStore(address, port, use_libuv=False, **options)


@dataclass(frozen=True)
class _Endpoint:
    """The address of the store; with a `token`, one of several ports from the first on."""

    address: str
    port: int
    token: str

    @property
    def ports(self) -> range:
        return range(self.port, min(self.port + (PORTS if self.token else 1), 65536))

    def open(self, timeout: timedelta) -> dist.TCPStore:
        """A store in this process, at the first free port."""
        errors = []
        for port in self.ports:
            try:
                store = tcp_store(self.address, port, is_master=True, timeout=timeout, wait_for_workers=False)
                store.set(self.token, "")
                return store
            except (dist.DistError, RuntimeError, OSError) as error:
                errors.append(str(error).partition("\n")[0])
        raise EngineError(
            f"rank 0 on {socket.gethostname()} cannot open the rendezvous at {self}: {errors[-1]}\n"
            "  cause         another job or program on this machine uses the port\n"
            f"  fix           export MASTER_PORT={_free_port()}"
        )

    def connect(self, rank: int, timeout: timedelta) -> dist.TCPStore:
        """The store of rank 0, or of torchrun."""
        if not self.token:
            return tcp_store(self.address, self.port, is_master=False, timeout=timeout)
        end = time.monotonic() + timeout.total_seconds()
        pause = 0.05
        pending: dict[int, Future[dist.TCPStore | None]] = {}
        while time.monotonic() < end:
            for port in self.ports:
                if port not in pending and _is_listening(self.address, port):
                    pending[port] = self._connect_in_thread(port)
            futures.wait(pending.values(), pause, futures.FIRST_COMPLETED)
            for port in [port for port, result in pending.items() if result.done()]:
                store = pending.pop(port).result()
                if store is not None:
                    store.set_timeout(timeout)
                    return store
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
        raise PeersMissing(
            f"rank {rank} on {socket.gethostname()} found no rank 0 at {self} within "
            f"{timeout.total_seconds():g} s"
        )

    def _connect_in_thread(self, port: int) -> Future[dist.TCPStore | None]:
        """The result of `_connect`, in a daemon thread.

        torch waits forever for a program that accepts the connection and never answers, whatever
        its timeout.
        """
        result: Future[dist.TCPStore | None] = Future()
        threading.Thread(
            target=lambda: result.set_result(self._connect(port)), name="rendezvous", daemon=True
        ).start()
        return result

    def _connect(self, port: int) -> dist.TCPStore | None:
        """The store at `port`; None: it belongs to another job or program."""
        with suppress(dist.DistError, RuntimeError):
            wait = timedelta(seconds=_FOREIGN_S)
            store = tcp_store(self.address, port, is_master=False, timeout=wait)
            if store.check([self.token]):
                return store
        return None

    def __str__(self) -> str:
        ports = self.ports
        return f"{self.address}:{ports[0]}" + (f" to {ports[-1]}" if len(ports) > 1 else "")


def _free_port() -> int:
    """A port that no program of this machine uses now."""
    with socket.socket() as opened:
        opened.bind(("", 0))
        port: int = opened.getsockname()[1]
        return port


def _is_listening(address: str, port: int) -> bool:
    """Whether a program listens at the port; torch would take seconds to find out."""
    try:
        with socket.create_connection((address, port), _CONNECT_S) as connection:
            # If no program listens, a system now and then connects a port to itself.
            return connection.getsockname() != connection.getpeername()
    except OSError:
        return False


def _check_peers(store: dist.Store, size: int, timeout_s: float) -> tuple[str, list[int]]:
    """The problem that keeps the ranks from training, or "", and the missing ranks."""
    keys = [f"peer/{rank}" for rank in range(size)]
    try:
        store.wait(keys, timedelta(seconds=timeout_s))
    except (dist.DistError, RuntimeError):
        missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
        present = _read_peers(store, [k for r, k in enumerate(keys) if r not in set(missing)])
        return (
            f"{_ranks(missing)} of {size} did not register within {timeout_s:g} s; "
            f"registered: {_hosts(present)}",
            missing,
        )
    peers = _read_peers(store, keys)
    return _shared_device(peers) or _difference(store, peers), []


def _read_peers(store: dist.Store, keys: Sequence[str]) -> dict[int, Peer]:
    texts = store.multi_get(list(keys))
    return {
        int(key.partition("/")[2]): Peer(*json.loads(text)) for key, text in zip(keys, texts, strict=True)
    }


def _shared_device(peers: Mapping[int, Peer]) -> str:
    users = defaultdict(list)
    for rank, peer in peers.items():
        if peer.device:
            users[peer.host, peer.device].append(rank)
    for (host, device), ranks in users.items():
        if len(ranks) > 1:
            return (
                f"{_ranks(ranks)} on {host} use the same GPU, {device}; start at most one rank "
                "for each GPU, and let each see its own or all of the node (CUDA_VISIBLE_DEVICES)"
            )
    return ""


def _difference(store: dist.Store, peers: Mapping[int, Peer]) -> str:
    """The facts in which ranks differ from rank 0, if there are any."""
    by_digest = defaultdict(list)
    for rank, peer in peers.items():
        by_digest[peer.digest].append(rank)
    expected = json.loads(store.get(f"facts/{peers[0].digest}"))
    for digest, ranks in by_digest.items():
        if digest == peers[0].digest:
            continue
        other = json.loads(store.get(f"facts/{digest}"))
        names = [name for name in {**expected, **other} if expected.get(name) != other.get(name)]
        lines = [f"{n} {other.get(n, 'unset')} instead of {expected.get(n, 'unset')}" for n in names]
        hosts = _hosts({rank: peers[rank] for rank in ranks})
        return (
            f"ranks have different settings: {hosts}: {'; '.join(lines[:_MAX_SHOWN])} as on rank 0 "
            f"({peers[0].host}); start every node with the same command and environment"
        )
    return ""


def _hosts(peers: Mapping[int, Peer]) -> str:
    """`node1 (ranks 0 to 3), node2 (rank 4)`."""
    by_host = defaultdict(list)
    for rank, peer in peers.items():
        by_host[peer.host].append(rank)
    shown = [f"{host} ({_ranks(ranks)})" for host, ranks in list(by_host.items())[:_MAX_SHOWN]]
    more = len(by_host) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _ranks(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 1, 4`, `ranks 0 to 7`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"ranks {ranks[0]} to {ranks[-1]}"
    listed = ", ".join(map(str, ranks[: 4 * _MAX_SHOWN]))
    return f"ranks {listed}" + (" and more" if len(ranks) > 4 * _MAX_SHOWN else "")


def _read_result(store: dist.Store, rank: int, timeout_s: float) -> tuple[str, list[int]]:
    """The result of rank 0, which waits for a timeout of its own."""
    try:
        store.wait(["result"], timedelta(seconds=timeout_s + _RESULT_S))
        problem, missing = json.loads(store.get("result"))
    except (dist.DistError, RuntimeError) as error:
        raise PeersMissing(
            f"rank {rank} on {socket.gethostname()} lost rank 0 during the rendezvous: {error}"
        ) from error
    if problem:
        store.add("readers", 1)
    return problem, missing


def _wait_for_readers(store: dist.Store, readers: int) -> None:
    """Keep the store, which ends with rank 0, until the other ranks have read the result."""
    end = time.monotonic() + _RESULT_S
    while store.add("readers", 0) < readers and time.monotonic() < end:
        time.sleep(0.02)
