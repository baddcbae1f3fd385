"""The processes that train together: who they are, and how they talk."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from engines.base import EngineError, PeersMissing
from engines.device import identity, pick_device, use
from engines.network import check_interfaces, interfaces, name_interface
from engines.rendezvous import check_ranks, open_store

FLAG_BITS = 16
_BACKENDS = {
    "cpu": "gloo",
    # Both, so that tensors in host memory travel as well: offloaded shards, flags, sizes.
    "cuda": "cpu:gloo,cuda:nccl",
    "xpu": "cpu:gloo,xpu:xccl",
}


@dataclass(frozen=True)
class RankInfo:
    """Where a process stands among all of them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node: int = 0


class ProcessWorld:
    """The `World` of torch.distributed; a world of one needs no process group."""

    def __init__(self, place: RankInfo, device: torch.device, timeout_s: float):
        self.rank = place.rank
        self.size = place.size
        self.local_rank = place.local_rank
        self.local_size = place.local_size
        self.node = place.node
        self.device = device
        self._timeout_s = timeout_s
        self._hosts: dist.ProcessGroup | None = None
        self._owns_group = False

    def open_group(self, facts: Mapping[str, str] | None = None) -> None:
        """Join the process group, with ranks of the same `facts`. Collective.

        Raises EngineError where there is none to join or ranks are not alike, and PeersMissing.
        """
        if dist.is_initialized():
            raise EngineError(
                "a process group is already open in this process; close it before a run starts"
            )
        backend = _backend(self.device.type)
        timeout = timedelta(seconds=self._timeout_s)
        store = open_store(self.rank, self.size, timeout)
        if self.size > 1:
            if self.size > self.local_size:
                name_interface(os.environ["MASTER_ADDR"])
            alike = _alike(self.device) | dict(facts or {})
            check_ranks(store, self.rank, self.size, alike, identity(self.device), self._timeout_s)
        try:
            dist.init_process_group(
                backend,
                store=store,
                rank=self.rank,
                world_size=self.size,
                timeout=timeout,
                device_id=self.device if self.device.type == "cuda" else None,
            )
        except (dist.DistError, RuntimeError) as fault:
            raise PeersMissing(
                f"rank {self.rank} on {socket.gethostname()} could not join the other "
                f"{self.size - 1}: {fault}"
            ) from fault
        self._owns_group = True
        # Flags and barriers go from host to host, so that no rank waits for its device.
        self._hosts = (
            dist.group.WORLD
            if backend == "gloo"
            else dist.new_group(backend="gloo", timeout=timeout)
        )

    def sum(self, value: Tensor) -> Tensor:
        return self._reduce(value, dist.ReduceOp.SUM)

    def maximum(self, value: Tensor) -> Tensor:
        return self._reduce(value, dist.ReduceOp.MAX)

    def agree(self, flags: int) -> int:
        assert 0 <= flags < 1 << FLAG_BITS
        if self.size == 1:
            return flags
        # One MAX per flag: not every backend has a bitwise or, pytorch/pytorch#41362.
        bits = torch.tensor([flags >> bit & 1 for bit in range(FLAG_BITS)], dtype=torch.uint8)
        dist.all_reduce(bits, dist.ReduceOp.MAX, group=self._hosts)
        return sum(bit << place for place, bit in enumerate(bits.tolist()))

    def broadcast(self, data: bytes | None, source: int = 0) -> bytes:
        if self.size == 1:
            assert data is not None
            return data
        size = torch.tensor([len(data or b"")])
        dist.broadcast(size, source, group=self._hosts)
        buffer = torch.empty(int(size), dtype=torch.uint8)
        if self.rank == source:
            assert data is not None
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else buffer
        if buffer.numel():
            dist.broadcast(buffer, source, group=self._hosts)
        return bytes(buffer.numpy())

    def barrier(self, timeout_s: float | None = None) -> None:
        """Wait for every rank; the TimeoutError on rank 0 names those that did not come."""
        if self.size == 1:
            return
        seconds = self._timeout_s if timeout_s is None else timeout_s
        try:
            dist.monitored_barrier(self._hosts, timedelta(seconds=seconds), wait_all_ranks=True)
        except RuntimeError as fault:
            raise TimeoutError(
                f"rank {self.rank} waited {seconds:g} s at a barrier: {fault}"
            ) from fault

    def close(self) -> None:
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()
        self._owns_group = False
        self._hosts = None

    def _reduce(self, value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total, operation)
        return total


def open_world(
    device: str, timeout_s: float, always_group: bool, facts: Mapping[str, str] | None = None
) -> ProcessWorld:
    """The world that the environment tells of (torchrun's variables), or a world of one.

    Collective. `device` as in `pick_device`; `timeout_s` is how long a rank waits for another;
    `always_group` opens a process group for a single process too; `facts` are to be the same on
    all ranks. Raises EngineError and PeersMissing.
    """
    place = read_ranks(os.environ)
    if place.size > 1:
        check_interfaces(os.environ, interfaces())
    world = ProcessWorld(place, pick_device(device, place.local_rank, place.local_size), timeout_s)
    use(world.device)
    if place.size > 1 or always_group:
        world.open_group(facts)
    return world


def read_ranks(environment: os._Environ[str] | dict[str, str]) -> RankInfo:
    """Where torchrun's variables put this process; a lone process without them.

    Raises EngineError where they are incomplete or contradict each other.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return RankInfo()
    rank = _number(environment, "RANK")
    size = _number(environment, "WORLD_SIZE")
    local_rank = _number(environment, "LOCAL_RANK", rank)
    local_size = _number(environment, "LOCAL_WORLD_SIZE", size)
    node = _number(environment, "GROUP_RANK", 0)
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise EngineError(
            f"the environment puts this process at RANK {rank} of WORLD_SIZE {size}, "
            f"LOCAL_RANK {local_rank} of LOCAL_WORLD_SIZE {local_size}; "
            "a rank is below its size"
        )
    return RankInfo(rank, size, local_rank, local_size, node)


def _alike(device: torch.device) -> dict[str, str]:
    """What ranks that exchange tensors have in common."""
    return {"torch": torch.__version__.partition("+")[0], "device": device.type}


def _number(
    environment: os._Environ[str] | dict[str, str], name: str, default: int | None = None
) -> int:
    text = environment.get(name)
    if text is None:
        if default is not None:
            return default
        raise EngineError(f"the environment has no {name}, but its partner; torchrun sets both")
    try:
        return int(text)
    except ValueError:
        raise EngineError(f"{name}={text} in the environment is not a whole number") from None


def _backend(kind: str) -> str:
    if kind not in _BACKENDS:
        raise EngineError(
            f"device {kind} has no backend for a process group; "
            "engine local with one process can use it, and every engine can use device cpu"
        )
    backend = _BACKENDS[kind]
    missing = [
        name
        for name, there in (
            ("gloo", dist.is_gloo_available()),
            ("nccl", dist.is_nccl_available()),
            ("xccl", getattr(dist, "is_xccl_available", bool)()),
        )
        if name in backend and not there
    ]
    if missing:
        raise EngineError(
            f"torch {torch.__version__} was built without {missing[0]}, which processes on {kind} "
            "talk through; engine local with one process needs none"
        )
    return backend
