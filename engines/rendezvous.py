"""Rendezvous: how ranks find each other, and the rank consistency check before they train."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from math import inf
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from gearshift.engines import environment
from gearshift.engines.base import EngineError, PeersMissing, World
from gearshift.engines.local_ranks import LocalRanks
from gearshift.engines.network import (
    are_connected,
    close_ports,
    listening,
    select_interface,
    use_loopback,
)

_BACKENDS = {
    "cpu": "gloo",
    # Both, so that tensors in host memory travel as well: offloaded shards, flags, sizes.
    "cuda": "cpu:gloo,cuda:nccl",
    "xpu": "cpu:gloo,xpu:xccl",
}
_RESULT_S = 5.0
_ATTEMPTS = 12
_SIGNATURE_BYTES = 32
_MAX_SHOWN = 8
# Of each rank its host, and the digest of its facts
_Peers = Mapping[int, tuple[str, str]]


class Joined(NamedTuple):
    """How the ranks of a process group reach each other."""

    store: dist.Store
    hosts: dist.ProcessGroup
    """For tensors in host memory."""
    local_ranks: LocalRanks | None
    """None: there is no other rank on this machine."""
    secret: bytes
    """What only ranks of this run know."""


def join_group(world: World, facts: Mapping[str, str], timeout_s: float) -> Joined:
    """Join the process group, with ranks of the same `facts`. Collective.

    Raises EngineError if there is no group to join or ranks differ, and PeersMissing.
    """
    if dist.is_initialized():
        raise EngineError(
            "a process group is already open in this process; close it before a run starts"
        )
    device_type = world.device.type
    backend = _BACKENDS.get(device_type)
    if backend is None:
        raise EngineError(
            f"no process group backend for device {device_type}; use engine local with one "
            "process, or device cpu"
        )

    timeout = timedelta(seconds=timeout_s)
    local_ranks = None
    if world.local_size > 1:
        local_ranks = LocalRanks(world, timeout_s)
    store: dist.Store
    secret = environment.variables().get(environment.SECRET, "").encode()
    if world.size == 1:
        store = dist.HashStore()
    elif local_ranks and world.size == world.local_size:
        # No port: a file in a folder that no other user can enter.
        secret = local_ranks.secret.encode()
        file = local_ranks.folder / f"store-{local_ranks.secret[:16]}"
        store = dist.FileStore(str(file), world.size)
        store.set_timeout(timeout)
        use_loopback()
    else:
        store = open_store(world.rank, timeout)
        select_interface(environment.variables()["MASTER_ADDR"])
    if world.size > 1:
        version = torch.__version__.partition("+")[0]
        facts = {"torch": version, "device": device_type, **facts}
        check_ranks(store, world.rank, world.size, facts, timeout_s)
    before = listening()
    for attempt in range(_ATTEMPTS):
        attempt_store = dist.PrefixStore(f"group/{attempt}", store)
        try:
            dist.init_process_group(
                backend,
                store=attempt_store,
                rank=world.rank,
                world_size=world.size,
                timeout=timeout,
                device_id=world.device if device_type == "cuda" else None,
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
        attempt_store.add("connected", int(are_connected(secret)))
        attempt_store.add("arrived", 1)
        wait_for_count(attempt_store, "arrived", world.size, timeout_s)
        if attempt_store.add("connected", 0) == world.size:
            break
        dist.destroy_process_group()  # the next one has other ports
    else:
        raise PeersMissing(
            f"{_ATTEMPTS} times another process connected to a port of rank {world.rank} on "
            f"{socket.gethostname()} before the other ranks did; look for a program that connects "
            "to all ports of this machine"
        )
    close_ports(listening() - before)
    return Joined(store, hosts, local_ranks, secret)


def wait_for_count(
    store: dist.Store, key: str, count: int, limit_s: float | None, check: Callable[[], Any] = int
) -> None:
    """Wait until the counter `key` has reached `count`. Raises TimeoutError.

    `check` is called meanwhile. A wait of the store itself would keep signals from their handlers.
    """
    pause_s = 0.001
    deadline = inf if limit_s is None else time.monotonic() + limit_s
    while store.add(key, 0) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"timed out waiting {limit_s:g} s for other ranks")
        check()
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)


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
    store.add("readers", 1)
    if rank == 0:
        with suppress(TimeoutError):
            wait_for_count(store, "readers", readers, limit_s)


def open_store(rank: int, timeout: timedelta) -> dist.Store:
    """The store through which ranks of several machines exchange addresses.

    It is empty at each attempt of torchrun, and takes only values that are signed with the secret
    of the ranks. Raises EngineError if the environment has no address or the port is in use, and
    PeersMissing if rank 0 does not answer within `timeout`.
    """
    variables = environment.variables()
    address = variables.get("MASTER_ADDR")
    text = variables.get("MASTER_PORT")
    if not address or not text:
        raise EngineError(
            "processes on several machines cannot find each other: MASTER_ADDR and MASTER_PORT "
            "are not set; torchrun sets both"
        )
    if not text.isdigit():
        raise EngineError(f"MASTER_PORT={text} in the environment is not an integer")
    # torchrun's agent keeps one store through all restarts of the workers.
    agent_has_store = variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = rank == 0 and not agent_has_store
    try:
        store = dist.TCPStore(
            address, int(text), is_master=serves, timeout=timeout, wait_for_workers=False
        )
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
    secret = variables.get(environment.SECRET, "")
    prefixed = dist.PrefixStore(f"gearshift/attempt-{attempt}", store)
    return SignedStore(prefixed, secret.encode(), timeout)


class SignedStore(dist.Store):
    """A store whose values are signed: whoever reaches its port can read and overwrite them.

    A value with another signature is a RuntimeError. Counters are not signed: they say when to
    look, and what was counted has a signature of its own.
    """

    def __init__(self, store: dist.Store, secret: bytes, timeout: timedelta):
        super().__init__()
        self.set_timeout(timeout)
        self._store = store
        self._secret = secret

    def set(self, key: str, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else bytes(value)
        self._store.set(key, self._signature(key, content) + content)  # type: ignore[arg-type]

    def get(self, key: str) -> bytes:
        return self._checked(key, self._store.get(key))

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.get(key) for key in keys]

    def add(self, key: str, amount: int) -> int:
        return self._store.add(key, amount)

    def check(self, keys: list[str]) -> bool:
        return self._store.check(keys)

    def wait(self, keys: list[str], *timeout: timedelta) -> None:
        self._store.wait(keys, *timeout)

    def delete_key(self, key: str) -> bool:
        return self._store.delete_key(key)

    def _signature(self, key: str, content: bytes) -> bytes:
        """It covers the key, so that a value counts under no other one."""
        return hmac.digest(self._secret, key.encode() + b"\0" + content, "sha256")

    def _checked(self, key: str, value: bytes) -> bytes:
        signature = value[:_SIGNATURE_BYTES]
        content = value[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(key, content)):
            raise RuntimeError(
                f"the value of '{key}' in the rendezvous was not written by a rank of this run: "
                f"its signature is not that of {environment.SECRET}"
            )
        return content


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
