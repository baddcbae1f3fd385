"""Engines with a full replica of the weights on each rank: local, ddp and oss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Module

from gearshift.engines.base import Blocks, OptimizerSpec, Options, State, World
from gearshift.engines.optimizer_step import EngineWithOptimizerStep
from gearshift.engines.precision import DTYPES, check_precision, set_matmul_precision
from gearshift.engines.preparation import change_forward, freeze_empty, move_to_device
from gearshift.engines.state import fill_slots, gather_state

if TYPE_CHECKING:
    from gearshift.engines.weight_changes import WeightChanges


class Replicated(EngineWithOptimizerStep):
    """An engine with full replicas; gradients are averaged, slots optionally sharded.

    Ranks may use different parameters in a step; the gradient of an unused one counts as zero.
    """

    gathers_weights = False

    def __init__(
        self,
        world: World,
        options: Options,
        averaging: Callable[[Module, World, Options], Any],
        sharded: Callable[[OptimizerSpec], OptimizerSpec] | None = None,
    ):
        """`averaging`: gives the `module` that the loop calls, and `accumulate` as of an Engine.

        `sharded`: the recipe of an optimizer whose `optim` has a part of the parameters;
        None: each rank updates all of them.
        """
        check_precision(options.precision, world.device)
        self.world = world
        self.can_retry_step = world.size == 1  # others would wait for this rank's gradients
        self._options = options
        self._averaging = averaging
        self._sharded = sharded
        self._casts: torch.autocast | None = None
        self._restore_matmul = set_matmul_precision(options.precision)

    def prepare(self, model: Module, optimizer: OptimizerSpec, blocks: Blocks) -> Module:
        freeze_empty(model)
        move_to_device(model, self.world)
        change_forward(model, blocks, self._options, self.world.device)
        self._averaged = self._averaging(model, self.world, self._options)
        if self._sharded:
            from gearshift.engines.state_cover import check_cover

            self.begin_updates(model, self._sharded(optimizer))
            self._local_optimizer = self._optimizer.optim  # type: ignore[attr-defined]
            check_cover(self.state(), self.world)
        else:
            self.begin_updates(model, optimizer)
            fill_slots(self._optimizer)  # a lack of memory shows now, not in the first step
        return self._averaged.module

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        """As `Engine.accumulate`.

        Autocast drops the weights that it has cast when the outermost context ends: one that is
        open over all micro-batches of a step, and changes no precision, saves casting them again.
        """
        if self._changes:
            self._changes.begin_pass()
        is_first = self._casts is None
        graphs = self._options.graphs
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()  # not at each block, which is the default
        if self._casts is None:
            self._casts = torch.autocast(self.world.device.type, enabled=False)
            self._casts.__enter__()
        ends_step = True  # also with an error
        try:
            with self._averaged.accumulate(last):
                yield
            if graphs and is_first and not last:
                # The next pass overwrites the memory of CUDA graphs; later ones add to copies.
                for parameter in self._named.values():
                    if parameter.grad is not None:
                        parameter.grad = parameter.grad.clone()
            ends_step = last
        finally:
            if ends_step:
                self._casts.__exit__(None, None, None)
                self._casts = None

    def _watch_weights(self) -> WeightChanges | None:
        if self.world.size == 1 and self._options.precision not in DTYPES:
            return None
        from gearshift.engines.weight_changes import WeightChanges

        # FairScale sends updated weights from buffers of its own.
        pinned = [name for name, p in self._named.items() if self._sharded and p.requires_grad]
        return WeightChanges(self.world, self._options, self._named, pinned=pinned)

    def state(self) -> State:
        replica = (self.world.rank, self.world.size)
        return gather_state(
            self._model,
            self._shapes,
            self._named,
            self._local_optimizer,
            self.groups,
            self.scale_state,
            weight_replica=replica,
            slot_replica=(0, 1) if self._sharded else replica,
        )

    def close(self) -> None:
        self._restore_matmul()
