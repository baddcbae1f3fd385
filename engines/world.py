"""The processes that train together: process group, collectives and rank consistency."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from gearshift.engines import environment
from gearshift.engines.base import PeersMissing
from gearshift.engines.device import allocate_pinned, pick_device, use
from gearshift.engines.environment import RankInfo, read_ranks

if TYPE_CHECKING:
    from gearshift.engines.local_ranks import LocalRanks

FLAG_BITS = 16
_MAX_NUMBERS = 4096
"""More go through gloo: all local ranks send before they receive, and a socket holds 200 kB."""


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
        self._local_ranks: LocalRanks | None = None
        self._node_group: dist.ProcessGroup | None = None
        """The first rank of each machine, through which the machines agree."""
        self._last_sum: Callable[[], list[int]] = list
        self.store: dist.Store | None = None
        self._exchange = 0
        self._spans_nodes = info.size > info.local_size
        self._owns_group = False

    def open_group(self, facts: Mapping[str, str] | None = None) -> None:
        """Join the process group, with ranks of the same `facts`. Collective.

        Raises EngineError if there is no group to join or ranks differ, and PeersMissing.
        """
        from gearshift.engines.rendezvous import join_group

        joined = join_group(self, facts or {}, self._timeout_s)
        self.store = joined.store
        self._hosts = joined.hosts
        self._local_ranks = joined.local_ranks
        self._secret = joined.secret
        self._owns_group = True
        self._node_group = self._hosts
        if self._spans_nodes:
            is_first = torch.zeros(self.size, dtype=torch.uint8)  # [ranks]
            is_first[self.rank] = self.local_rank == 0
            dist.all_reduce(is_first, dist.ReduceOp.MAX, group=self._hosts)
            self._first_ranks = is_first.nonzero().flatten().tolist()
            if len(self._first_ranks) < self.size:
                timeout = timedelta(seconds=self._timeout_s)
                with self.connecting():
                    group: Any = dist.new_group(self._first_ranks, timeout, "gloo")
                self._node_group = group

    @contextmanager
    def connecting(self) -> Iterator[None]:
        if self.store is None:
            yield
            return
        from gearshift.engines.network import are_connected, close_ports, listening

        before = listening()
        yield
        if not are_connected(self._secret):
            raise PeersMissing(
                f"rank {self.rank} is not connected with all others: one has ended, or another "
                "process has connected to a port of this run"
            )
        close_ports(listening() - before)

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
        dist.broadcast(size, source, group=self._hosts)
        buffer = torch.empty(int(size), dtype=torch.uint8)
        if self.rank == source:
            assert data is not None
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else buffer
        if buffer.numel():
            dist.broadcast(buffer, source, group=self._hosts)
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
            self._sum_later([], None)()

    def check_peers(self) -> None:
        if self._local_ranks:
            self._local_ranks.check()

    def host_memory(self, size: int) -> Tensor:
        return allocate_pinned(size, self.device)

    def close(self) -> None:
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()
        if self._local_ranks:
            self._local_ranks.close()
        self._owns_group = False
        self._hosts = None

    def _sum_later(self, numbers: Sequence[int], limit_s: float | None) -> Callable[[], list[int]]:
        """Start a sum over ranks; on one machine without gloo, whose threads take 1 ms of a step.

        Over several machines in two levels: on each to its first rank, and between the first ranks.
        `limit_s`: how long the result waits for a rank; None: as long as its process is there.
        """
        if len(numbers) > _MAX_NUMBERS:
            return self._reduce_later(numbers, self._hosts)
        self._exchange += 1
        exchange = self._exchange
        local_ranks = self._local_ranks
        if local_ranks and not self._spans_nodes:
            local_ranks.send(exchange, numbers)
            return cache(lambda: _total([numbers, *local_ranks.receive(exchange, limit_s)]))
        self._last_sum()  # first ranks take their collectives in one order
        self._last_sum = cache(self._start_in_two_levels(exchange, numbers, limit_s))
        return self._last_sum

    def _start_in_two_levels(
        self, exchange: int, numbers: Sequence[int], limit_s: float | None
    ) -> Callable[[], list[int]]:
        local_ranks = self._local_ranks
        if not local_ranks:  # alone on this machine
            return self._sum_over_nodes(numbers, limit_s)
        if self.local_rank:
            first = [local_ranks.first]
            local_ranks.send(exchange, numbers, first)
            return lambda: local_ranks.receive(exchange, limit_s, first)[0]

        def result() -> list[int]:
            here = _total([numbers, *local_ranks.receive(exchange, limit_s)])
            everywhere = self._sum_over_nodes(here, limit_s)()
            local_ranks.send(exchange, everywhere)
            return everywhere

        return result

    def _sum_over_nodes(
        self, numbers: Sequence[int], limit_s: float | None
    ) -> Callable[[], list[int]]:
        """Start a sum over the first ranks of all machines; without `limit_s` only a wait."""
        if limit_s is not None:
            return self._reduce_later(numbers, self._node_group)
        from gearshift.engines.rendezvous import wait_for_count

        assert self.store is not None
        key = f"turn/{self._exchange}"
        self.store.add(key, 1)
        wait_for_count(self.store, key, len(self._first_ranks), None, self.check_peers)
        return lambda: [*numbers]

    def _reduce_later(
        self, numbers: Sequence[int], group: dist.ProcessGroup | None
    ) -> Callable[[], list[int]]:
        total = torch.tensor(numbers)
        work = dist.all_reduce(total, group=group, async_op=True)

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


def _total(numbers: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*numbers, strict=True)]


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
