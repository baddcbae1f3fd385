"""The processes that train together: process group, collectives and rank consistency."""

from __future__ import annotations

import socket
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor

from gearshift.engines import environment
from gearshift.engines.device import allocate_pinned, pick_device, use
from gearshift.engines.environment import RankInfo, read_ranks

FLAG_BITS = 16
_MOST_BYTES = 4096
"""Of a datagram."""


class ProcessWorld:
    """The `World` of torch.distributed; a world of one needs no process group."""

    def __init__(self, info: RankInfo, device: torch.device, timeout_s: float):
        self.rank = info.rank
        self.size = info.size
        self.local_rank = info.local_rank
        self.local_size = info.local_size
        self.node = info.node
        self.device = device
        self._timeout_s = timeout_s
        self._hosts: dist.ProcessGroup | None = None
        self._lines: list[socket.socket] = []
        self._last_sum: Callable[[], list[int]] = list
        self.store: dist.Store | None = None
        self._turns = 0
        self._owns_group = False

    def open_group(self, facts: Mapping[str, str] | None = None) -> None:
        """Join the process group, with ranks of the same `facts`. Collective.

        Raises EngineError if there is no group to join or ranks differ, and PeersMissing.
        """
        from gearshift.engines.rendezvous import join_group, open_lines

        self.store, self._hosts = join_group(self, facts or {}, self._timeout_s)
        self._owns_group = True
        if self.size == self.local_size:
            self._lines = open_lines(self.store, self.rank, self.size, self._timeout_s)

    def sum(self, value: Tensor) -> Tensor:
        return self._reduce(value, dist.ReduceOp.SUM)

    def maximum(self, value: Tensor) -> Tensor:
        return self._reduce(value, dist.ReduceOp.MAX)

    def agree(self, flags: int) -> int:
        agreed, _ = self.agree_later(flags)()
        return agreed

    def agree_later(
        self, flags: int, counts: Sequence[int] = ()
    ) -> Callable[[], tuple[int, list[int]]]:
        assert 0 <= flags < 1 << FLAG_BITS
        if self.size == 1:
            return lambda: (flags, list(counts))
        # One sum per flag: not every backend has a bitwise or, pytorch/pytorch#41362.
        votes = [flags >> bit & 1 for bit in range(FLAG_BITS)]
        total = self._sum_later([*votes, *counts])

        def result() -> tuple[int, list[int]]:
            sums = total()
            agreed = sum(1 << bit for bit, count in enumerate(sums[:FLAG_BITS]) if count)
            return agreed, sums[FLAG_BITS:]

        return result

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
        """Wait for every rank; the TimeoutError on rank 0 names the missing ones."""
        if self.size == 1:
            return
        seconds = self._timeout_s if timeout_s is None else timeout_s
        try:
            dist.monitored_barrier(self._hosts, timedelta(seconds=seconds), wait_all_ranks=True)
        except RuntimeError as error:
            raise TimeoutError(
                f"rank {self.rank} waited {seconds:g} s at a barrier: {error}"
            ) from error

    def rank_0_first(self, work: Callable[[], None]) -> None:
        if self.size == 1:
            return work()
        self._turns += 1
        if self.rank == 0:
            work()
            self._arrive()
        self._wait_until(1)
        if self.rank != 0:
            work()
            self._arrive()
        self._wait_until(self.size)

    def wait_for_all(self) -> None:
        if self.size > 1:
            self._turns += 1
            self._arrive()
            self._wait_until(self.size)

    def host_memory(self, size: int) -> Tensor:
        return allocate_pinned(size, self.device)

    def close(self) -> None:
        for line in self._lines:
            line.close()
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()
        self._owns_group = False
        self._hosts = None

    def _arrive(self) -> None:
        """Count this rank as done with the present turn."""
        assert self.store is not None
        self.store.add(f"turn/{self._turns}", 1)

    def _wait_until(self, ranks: int) -> None:
        """Wait until so many `ranks` are done with the present turn."""
        assert self.store is not None
        pause = 0.001  # a wait of the store would keep signals from their handlers
        while self.store.add(f"turn/{self._turns}", 0) < ranks:
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _sum_later(self, numbers: Sequence[int]) -> Callable[[], list[int]]:
        self._last_sum()  # what arrives is read in order
        start = self._send if self._lines else self._reduce_later
        self._last_sum = cache(start(numbers))
        return self._last_sum

    def _send(self, numbers: Sequence[int]) -> Callable[[], list[int]]:
        """Without gloo, whose threads would take turns with the training: 1 ms of a step."""
        message = array("q", numbers)
        for line in self._lines:
            line.send(message)

        def total() -> list[int]:
            try:
                others = [array("q", line.recv(_MOST_BYTES)) for line in self._lines]
            except TimeoutError:
                raise TimeoutError(
                    f"rank {self.rank} timed out waiting {self._timeout_s:g} s for another rank"
                ) from None
            return [sum(column) for column in zip(numbers, *others, strict=True)]

        return total

    def _reduce_later(self, numbers: Sequence[int]) -> Callable[[], list[int]]:
        total = torch.tensor(numbers)
        work = dist.all_reduce(total, group=self._hosts, async_op=True)

        def result() -> list[int]:
            work.wait()
            return total.tolist()

        return result

    def _reduce(self, value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total, operation)
        return total


def open_world(
    device: str, timeout_s: float, always_group: bool, facts: Mapping[str, str] | None = None
) -> ProcessWorld:
    """The world in the environment (torchrun's variables), or a world of one. Collective.

    `device` as in `pick_device`; `timeout_s` is how long a rank waits for another; `always_group`
    opens a process group for a single process too; `facts` must be the same on all ranks. Raises
    EngineError and PeersMissing.
    """
    info = read_ranks(environment.variables())
    world = ProcessWorld(info, pick_device(device, info.local_rank, info.local_size), timeout_s)
    use(world.device)
    if info.size > 1 or always_group:
        world.open_group(facts)
    return world
