"""Rendezvous: how ranks find each other, and the rank consistency check before they train."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from gearshift.engines import environment
from gearshift.engines.base import EngineError, PeersMissing
from gearshift.engines.environment import RankInfo
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
_MAX_SHOWN = 32


def join_group(
    info: RankInfo, device: torch.device, facts: Mapping[str, str], timeout_s: float
) -> tuple[dist.Store, LocalRanks, bytes]:
    """Join the process group, with ranks of the same `facts`. Collective.

    Returns the store of the ranks, their connections on this machine, and a secret that only they
    know. Raises EngineError if there is no group to join or ranks differ, and PeersMissing.
    """
    if dist.is_initialized():
        raise EngineError(
            "a process group is already open in this process; close it before a run starts"
        )
    backend = _BACKENDS.get(device.type)
    if backend is None:
        raise EngineError(
            f"no process group backend for device {device.type}; use engine local with one "
            "process, or device cpu"
        )

    timeout = timedelta(seconds=timeout_s)
    local_ranks = LocalRanks(info, timeout_s)
    secret = local_ranks.secret.encode()
    store: dist.Store = dist.HashStore()
    if info.size > info.local_size:
        secret = environment.variables().get(environment.SECRET, "").encode()
        store = open_store(info.rank, timeout)
        select_interface(environment.address()[0])
    elif info.size > 1:
        # No port: a file in a folder that no other user can enter.
        file = local_ranks.folder / f"store-{local_ranks.secret[:16]}"
        store = dist.FileStore(str(file), info.size)
        use_loopback()
    store.set_timeout(timeout)

    try:
        version = torch.__version__.partition("+")[0]
        facts = {"torch": version, "device": device.type, **facts}
        check_ranks(store, info.rank, info.size, facts, timeout_s)
        for attempt in range(1, _ATTEMPTS + 1):
            group_store = dist.PrefixStore(f"group/{attempt}", store)
            try:
                with only_ranks(group_store, info.size, secret, timeout_s, local_ranks.check):
                    dist.init_process_group(
                        backend,
                        store=group_store,
                        rank=info.rank,
                        world_size=info.size,
                        timeout=timeout,
                        device_id=device if device.type == "cuda" else None,
                    )
                break
            except Intruder:
                if attempt == _ATTEMPTS:
                    raise
                dist.destroy_process_group()  # the next one has other ports
    except RuntimeError as error:
        raise PeersMissing(
            f"rank {info.rank} on {socket.gethostname()} could not join the other "
            f"{info.size - 1}: {error}"
        ) from error
    return store, local_ranks, secret


class Intruder(PeersMissing):
    """Another process is connected to a port of a process group."""


@contextmanager
def only_ranks(
    store: dist.Store, size: int, secret: bytes, timeout_s: float, check: Callable[[], None]
) -> Iterator[None]:
    """Around what makes process groups: at its end only ranks are connected by them. Collective.

    `store` is one that no other call had. Raises Intruder, on all ranks, and what `check` raises
    while it waits for other ranks.
    """
    before = listening()
    yield
    store.add("connected", int(are_connected(secret)))
    store.add("checked", 1)
    wait_for_count(store, "checked", size, timeout_s, check)
    if store.add("connected", 0) < size:
        raise Intruder(
            f"ranks on {socket.gethostname()} are not connected with all others: one has ended, or "
            "another program connects to all ports of this machine"
        )
    close_ports(listening() - before)


def wait_for_count(
    store: dist.Store, key: str, count: int, limit_s: float, check: Callable[[], Any] = int
) -> None:
    """Wait until the counter `key` has reached `count`. Raises TimeoutError.

    After a quarter of a second `check` is called now and then. A wait of the store itself would
    keep signals from their handlers.
    """
    pause_s = 0.001
    deadline = time.monotonic() + limit_s
    while store.add(key, 0) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"timed out waiting {limit_s:g} s for other ranks")
        if pause_s > 0.05:
            check()
        time.sleep(pause_s)
        # With many ranks less often: they all ask one store.
        pause_s = min(1.25 * pause_s, max(1.0, count / 64))


def check_ranks(
    store: dist.Store, rank: int, size: int, facts: Mapping[str, str], timeout_s: float
) -> None:
    """Wait until all ranks have registered, and check that their `facts` are equal. Collective.

    Raises PeersMissing, which names the ranks that are missing after `timeout_s`, and EngineError
    with the facts in which ranks differ: on every rank.
    """
    text = json.dumps(dict(facts), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    keys = [f"peer/{number}" for number in range(size)]
    store.set(digest, text)
    store.set(keys[rank], json.dumps([socket.gethostname(), digest]))
    store.add("registered", 1)
    with suppress(TimeoutError):  # some are missing
        wait_for_count(store, "registered", size, timeout_s)
    present = [number for number, key in enumerate(keys) if store.check([key])]
    peers = {number: json.loads(store.get(keys[number])) for number in present}
    problem: Exception | None = None
    if len(peers) < size:
        missing = [number for number in range(size) if number not in peers]
        hosts = dict.fromkeys(host for host, _ in peers.values())
        problem = PeersMissing(
            f"{len(missing)} of {size} ranks did not register within {timeout_s:g} s: "
            f"{_listed(missing)}; the others are on {_listed(hosts)}"
        )
    elif any(other != digest for _, other in peers.values()):
        problem = _difference(store, peers)
    if problem:
        wait_for_readers(store, rank, len(peers), _RESULT_S)
        raise problem


def _difference(store: dist.Store, peers: Mapping[int, tuple[str, str]]) -> EngineError:
    """An error with the facts in which ranks differ. `peers`: of each its host and its digest."""
    host_0, digest_0 = peers[0]
    digest = next(digest for _, digest in peers.values() if digest != digest_0)
    ranks = [f"rank {n} ({host})" for n, (host, other) in peers.items() if other == digest]
    expected = json.loads(store.get(digest_0))
    facts = json.loads(store.get(digest))
    lines = []
    for name in expected | facts:
        value = expected.get(name, "unset")
        other_value = facts.get(name, "unset")
        if value != other_value:
            lines.append(f"{name} {other_value} instead of {value}")
    return EngineError(
        f"ranks have different settings: {_listed(ranks)}: {_listed(lines)} as on rank 0 "
        f"({host_0}); start every node with the same command and environment"
    )


def _listed(items: Iterable[object]) -> str:
    """The first of `items`."""
    texts = [str(item) for item in items]
    more = " and more" if len(texts) > _MAX_SHOWN else ""
    return ", ".join(texts[:_MAX_SHOWN]) + more


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
    host, port = environment.address()
    variables = environment.variables()
    # torchrun's agent keeps one store through all restarts of the workers.
    agent_has_store = variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = rank == 0 and not agent_has_store
    try:
        store = dist.TCPStore(
            host, int(port), is_master=serves, timeout=timeout, wait_for_workers=False
        )
    except RuntimeError as error:
        here = f"rank {rank} on {socket.gethostname()}"
        reason = f"the rendezvous at {host}:{port}: {str(error).partition(chr(10))[0]}"
        if serves:
            raise EngineError(
                f"{here} cannot open {reason}; set MASTER_PORT to a port that no other job or "
                "program on this machine uses"
            ) from error
        raise PeersMissing(f"{here} could not reach {reason}") from error
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
        value = self._store.get(key)
        content = value[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(value, self._signature(key, content) + content):
            raise RuntimeError(
                f"the value of '{key}' in the rendezvous was not written by a rank of this run: "
                f"its signature is not that of {environment.SECRET}"
            )
        return content

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
