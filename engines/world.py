"""The processes that train together: process group, collectives and rank consistency."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from functools import cache, partial
from math import inf
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from gearshift.engines import environment
from gearshift.engines.device import allocate_pinned, pick_device, use
from gearshift.engines.environment import RankInfo, read_ranks

if TYPE_CHECKING:
    from gearshift.engines.local_ranks import LocalRanks

FLAG_BITS = 16
_MAX_NUMBERS = 4096
"""More go through gloo: all local ranks send before they receive, and a socket holds 200 kB."""
_LOOK = timedelta(seconds=1)
"""Between two looks of a rank that waits for other machines: at signals, and at its time limit."""
_NO_LIMIT = timedelta(days=10_000)


class ProcessWorld:
    """The `World` of torch.distributed; a world of one needs no process group."""

    def __init__(self, info: RankInfo, device: torch.device, timeout_s: float):
        self.rank = info.rank
        self.size = info.size
        self.local_rank = info.local_rank
        self.local_size = info.local_size
        self.device = device
        self.store: dist.Store | None = None
        self._info = info
        self._timeout_s = timeout_s
        self._local_ranks: LocalRanks | None = None
        self._node_group: Any = None
        """The first rank of each machine, by which machines agree; None: there is one."""
        self._connected = 0
        self._exchange = 0
        self._last_sum: Callable[[], list[int]] = list

    def open_group(self, facts: Mapping[str, str]) -> None:
        """Join the process group, with ranks of the same `facts`. Collective.

        Raises EngineError if there is no group to join or ranks differ, and PeersMissing.
        """
        from gearshift.engines.rendezvous import join_group

        joined = join_group(self._info, self.device, facts, self._timeout_s)
        self.store, self._local_ranks, self._secret = joined
        if self.size > self.local_size:
            is_first = torch.zeros(self.size, dtype=torch.uint8)  # [ranks]
            is_first[self.rank] = self.local_rank == 0
            first_ranks = self.maximum(is_first).nonzero().flatten().tolist()
            with self.connecting():
                self._node_group = dist.new_group(first_ranks, _NO_LIMIT, "gloo")

    def connecting(self) -> AbstractContextManager[None]:
        if self.store is None:
            return nullcontext()
        from gearshift.engines.rendezvous import only_ranks

        self._connected += 1
        store = dist.PrefixStore(f"connected/{self._connected}", self.store)
        return only_ranks(store, self.size, self._secret, self._timeout_s, self.check_peers)

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
        total = self._sum_later([*votes, *counts], self._timeout_s)

        def result() -> tuple[int, list[int]]:
            sums = total()
            agreed = sum(1 << bit for bit, count in enumerate(sums[:FLAG_BITS]) if count)
            return agreed, sums[FLAG_BITS:]

        return result

    def broadcast(self, data: bytes | None, source: int = 0) -> bytes:
        if self.size == 1:
            assert data is not None
            return data
        self.wait_for_all()  # the source may have read a slow disk
        size = torch.tensor([len(data or b"")])
        dist.broadcast(size, source)
        buffer = torch.empty(int(size), dtype=torch.uint8)
        if data and self.rank == source:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        dist.broadcast(buffer, source)
        return bytes(buffer.numpy())

    def rank_0_first(self, work: Callable[[], None]) -> None:
        if self.rank == 0:
            work()
        self.wait_for_all()
        if self.rank != 0:
            work()
        self.wait_for_all()

    def wait_for_all(self) -> None:
        if self.size > 1:
            self._sum_later([0], None)()

    def check_peers(self) -> None:
        if self._local_ranks:
            self._local_ranks.check()

    def host_memory(self, size: int) -> Tensor:
        return allocate_pinned(size, self.device)

    def close(self) -> None:
        if self.store is not None and dist.is_initialized():
            dist.destroy_process_group()
        if self._local_ranks:
            self._local_ranks.close()
        self.store = None
        self._local_ranks = None

    def _sum_later(self, numbers: Sequence[int], limit_s: float | None) -> Callable[[], list[int]]:
        """Start a sum over ranks; on one machine without gloo, whose threads take 1 ms of a step.

        `limit_s`: how long the result waits for a rank; None: as long as its process is there.
        """
        self._last_sum()  # all ranks take their collectives in one order
        if len(numbers) > _MAX_NUMBERS:
            total = self.sum(torch.tensor(numbers)).tolist()
            return lambda: total
        assert self._local_ranks
        self._exchange += 1
        self._local_ranks.send(self._exchange, numbers)
        self._last_sum = cache(partial(self._sum, self._local_ranks, numbers, limit_s))
        return self._last_sum

    def _sum(
        self, local_ranks: LocalRanks, numbers: Sequence[int], limit_s: float | None
    ) -> list[int]:
        """The sum of the latest exchange: over this machine, and between the first ranks of all."""
        others = local_ranks.receive(self._exchange, limit_s)
        total = [sum(column) for column in zip(numbers, *others, strict=True)]
        if not self._node_group:
            return total
        result = -self._exchange
        if self.local_rank:
            (total,) = local_ranks.receive(result, limit_s, [local_ranks.ranks[0]])
            return total
        total = self._sum_over_nodes(total, limit_s)
        local_ranks.send(result, total)
        return total

    def _sum_over_nodes(self, numbers: Sequence[int], limit_s: float | None) -> list[int]:
        total = torch.tensor(numbers)
        work = dist.all_reduce(total, group=self._node_group, async_op=True)
        deadline = inf if limit_s is None else time.monotonic() + limit_s
        while not work.is_completed():
            self.check_peers()
            if time.monotonic() > deadline:
                raise TimeoutError(f"timed out waiting {limit_s:g} s for other machines")
            with suppress(RuntimeError):  # it is not complete yet, or has failed
                work.wait(_LOOK)
        work.wait()  # raises the error of what has failed
        return total.tolist()

    def _reduce(self, value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total, operation)
        return total


def open_world(
    device: str, timeout_s: float, always_group: bool, facts: Mapping[str, str] = {}
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
