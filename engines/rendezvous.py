"""Where ranks meet before they can talk: who has come, and whether all were told the same."""

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

import torch.distributed as dist

from engines.base import EngineError, PeersMissing

PORTS = 8
"""How many ports in a row are tried, where another job may hold the first."""
NAME = "GEARSHIFT_RENDEZVOUS"
"""The variable with what the ranks of one step of Slurm know each other by."""
_KNOCK_S = 2.0
_FOREIGN_S = 5.0
_HEARD_S = 5.0
_SHOWN = 8


@dataclass(frozen=True)
class Guest:
    """What a rank tells of itself when it comes."""

    host: str
    digest: str
    """Of its facts, which ranks that were told the same have in common."""
    device: str
    """The hardware that no two ranks may share; empty: they may."""


def check_ranks(
    store: dist.Store, rank: int, size: int, facts: Mapping[str, str], device: str, timeout_s: float
) -> None:
    """Wait until every rank has come, and see that all have the same `facts`. Collective.

    Rank 0 reads what all have left, in one request, and leaves its verdict: a few milliseconds for
    a few ranks. Raises PeersMissing, which names the ranks that did not come within `timeout_s`,
    and EngineError with the facts in which ranks differ, or the device that two of them share.
    """
    told = json.dumps(dict(facts), sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    store.set(f"facts/{digest}", told)
    store.set(f"here/{rank}", json.dumps([socket.gethostname(), digest, device]))
    if rank == 0:
        verdict, missing = _judge(store, size, timeout_s)
        store.set("verdict", json.dumps([verdict, missing]))
        if verdict:
            _wait_until_heard(store, size - 1 - len(missing))
    else:
        verdict, missing = _hear(store, rank, timeout_s)
    if verdict:
        raise PeersMissing(verdict) if missing else EngineError(verdict)


def open_store(rank: int, size: int, timeout: timedelta) -> dist.Store:
    """Where ranks leave each other their addresses; empty at each attempt of torchrun.

    Raises EngineError where the environment does not say where it is, or its port is taken, and
    PeersMissing where rank 0 is not there within `timeout`.
    """
    if size == 1:
        return dist.HashStore()
    address, text = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not address or not text:
        raise EngineError(
            f"{size} processes cannot find each other: MASTER_ADDR and MASTER_PORT are not in the "
            "environment; torchrun sets both"
        )
    if not text.isdigit():
        raise EngineError(f"MASTER_PORT={text} in the environment is not a whole number")
    # torchrun's agent keeps one store through all restarts of the workers.
    agent_has_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    name = "" if agent_has_store else os.environ.get(NAME, "")
    place = _Place(address, int(text), name)
    try:
        if rank == 0 and not agent_has_store:
            store = place.open(timeout)
        else:
            store = place.find(rank, timeout)
    except (dist.DistError, RuntimeError) as fault:
        raise PeersMissing(
            f"rank {rank} on {socket.gethostname()} could not reach {address}:{text}, where ranks "
            f"meet: {fault}"
        ) from fault
    # Restarted workers would find the addresses of the dead under the same keys and hang.
    return dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


@dataclass(frozen=True)
class _Place:
    """The address of the store; with a `name`, one of several ports from the first on."""

    address: str
    port: int
    name: str

    @property
    def ports(self) -> range:
        return range(self.port, min(self.port + (PORTS if self.name else 1), 65536))

    def open(self, timeout: timedelta) -> dist.TCPStore:
        """The store, in this process, at the first port that is free."""
        faults = []
        for port in self.ports:
            try:
                store = dist.TCPStore(
                    self.address, port, is_master=True, timeout=timeout, wait_for_workers=False
                )
                store.set("meeting", self.name)
                return store
            except (dist.DistError, RuntimeError) as fault:
                faults.append(str(fault).partition("\n")[0])
        raise EngineError(
            f"rank 0 on {socket.gethostname()} cannot let ranks meet at {self}: {faults[-1]}; "
            "MASTER_PORT in the environment may name another port"
        )

    def find(self, rank: int, timeout: timedelta) -> dist.TCPStore:
        """The store of rank 0, or of torchrun."""
        if not self.name:
            return dist.TCPStore(self.address, self.port, is_master=False, timeout=timeout)
        end = time.monotonic() + timeout.total_seconds()
        pause = 0.05
        asked: dict[int, Future[dist.TCPStore | None]] = {}
        while time.monotonic() < end:
            for port in self.ports:
                if port not in asked and _answers(self.address, port):
                    asked[port] = self._ask_beside(port)
            futures.wait(asked.values(), pause, futures.FIRST_COMPLETED)
            for port in [port for port, answer in asked.items() if answer.done()]:
                store = asked.pop(port).result()
                if store is not None:
                    store.set_timeout(timeout)
                    return store
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
        raise PeersMissing(
            f"rank {rank} on {socket.gethostname()} found no rank 0 at {self} within "
            f"{timeout.total_seconds():g} s"
        )

    def _ask_beside(self, port: int) -> Future[dist.TCPStore | None]:
        """What `_ask` comes to, in a thread of its own that no end of the process waits for.

        torch waits for ever for a program that lets it in and says nothing, whatever its time-out.
        """
        answer: Future[dist.TCPStore | None] = Future()
        threading.Thread(
            target=lambda: answer.set_result(self._ask(port)), name="meeting", daemon=True
        ).start()
        return answer

    def _ask(self, port: int) -> dist.TCPStore | None:
        """The store at `port`; None: it is another job's, or another program's."""
        with suppress(dist.DistError, RuntimeError):
            wait = timedelta(seconds=_FOREIGN_S)
            store = dist.TCPStore(self.address, port, is_master=False, timeout=wait)
            if store.get("meeting") == self.name.encode():
                return store
        return None

    def __str__(self) -> str:
        ports = self.ports
        return f"{self.address}:{ports[0]}" + (f" to {ports[-1]}" if len(ports) > 1 else "")


def _answers(address: str, port: int) -> bool:
    """Whether anybody listens; to ask torch would take seconds where nobody does."""
    try:
        with socket.create_connection((address, port), _KNOCK_S) as knocking:
            # From a port that nobody listens at, a system now and then reaches itself.
            return knocking.getsockname() != knocking.getpeername()
    except OSError:
        return False


def _judge(store: dist.Store, size: int, timeout_s: float) -> tuple[str, list[int]]:
    """What keeps the ranks from beginning, if anything, and the ranks that did not come."""
    keys = [f"here/{rank}" for rank in range(size)]
    try:
        store.wait(keys, timedelta(seconds=timeout_s))
    except (dist.DistError, RuntimeError):
        missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
        came = _hosts(_guests(store, [k for r, k in enumerate(keys) if r not in set(missing)]))
        return (
            f"{_ranks(missing)} of {size} did not come within {timeout_s:g} s; came: {came}",
            missing,
        )
    guests = _guests(store, keys)
    return _sharing(guests) or _difference(store, guests), []


def _guests(store: dist.Store, keys: Sequence[str]) -> dict[int, Guest]:
    told = store.multi_get(list(keys))
    return {
        int(key.partition("/")[2]): Guest(*json.loads(text))
        for key, text in zip(keys, told, strict=True)
    }


def _sharing(guests: Mapping[int, Guest]) -> str:
    """Which ranks have one device in common, if any."""
    users = defaultdict(list)
    for rank, guest in guests.items():
        if guest.device:
            users[guest.host, guest.device].append(rank)
    for (host, device), ranks in users.items():
        if len(ranks) > 1:
            return (
                f"{_ranks(ranks)} on {host} were given one GPU, {device}; start at most one rank "
                "for each GPU, and let each see its own or all of the node (CUDA_VISIBLE_DEVICES)"
            )
    return ""


def _difference(store: dist.Store, guests: Mapping[int, Guest]) -> str:
    """In which facts ranks differ from rank 0, if any do."""
    by_digest = defaultdict(list)
    for rank, guest in guests.items():
        by_digest[guest.digest].append(rank)
    own = json.loads(store.get(f"facts/{guests[0].digest}"))
    for digest, ranks in by_digest.items():
        if digest == guests[0].digest:
            continue
        other = json.loads(store.get(f"facts/{digest}"))
        names = [name for name in {**own, **other} if own.get(name) != other.get(name)]
        lines = [f"{n} {other.get(n, 'unset')} in place of {own.get(n, 'unset')}" for n in names]
        hosts = _hosts({rank: guests[rank] for rank in ranks})
        return (
            f"ranks are not alike: {hosts}: {'; '.join(lines[:_SHOWN])}, which rank 0 on "
            f"{guests[0].host} has; let all nodes have one environment and the same words"
        )
    return ""


def _hosts(guests: Mapping[int, Guest]) -> str:
    """`node1 (ranks 0 to 3), node2 (rank 4)`."""
    by_host = defaultdict(list)
    for rank, guest in guests.items():
        by_host[guest.host].append(rank)
    shown = [f"{host} ({_ranks(ranks)})" for host, ranks in list(by_host.items())[:_SHOWN]]
    more = len(by_host) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _ranks(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 1, 4`, `ranks 0 to 7`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"ranks {ranks[0]} to {ranks[-1]}"
    listed = ", ".join(map(str, ranks[: 4 * _SHOWN]))
    return f"ranks {listed}" + (" and more" if len(ranks) > 4 * _SHOWN else "")


def _hear(store: dist.Store, rank: int, timeout_s: float) -> tuple[str, list[int]]:
    """The verdict of rank 0, which waits for a time-out of its own."""
    try:
        store.wait(["verdict"], timedelta(seconds=timeout_s + _HEARD_S))
        verdict, missing = json.loads(store.get("verdict"))
    except (dist.DistError, RuntimeError) as fault:
        raise PeersMissing(
            f"rank {rank} on {socket.gethostname()} lost rank 0 before all ranks had met: {fault}"
        ) from fault
    if verdict:
        store.add("heard", 1)
    return verdict, missing


def _wait_until_heard(store: dist.Store, listeners: int) -> None:
    """The store ends with rank 0: let the others read why."""
    end = time.monotonic() + _HEARD_S
    while store.add("heard", 0) < listeners and time.monotonic() < end:
        time.sleep(0.02)
