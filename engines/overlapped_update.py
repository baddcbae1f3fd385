"""The update of offloaded weights, which runs while the device computes the next forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import SGD, Adam, Optimizer

from gearshift.engines.optimizer_step import gradients_of, scale


def can_overlap(optimizer: Optimizer) -> bool:
    """Whether a part of the parameters may be updated alone, and without other ranks."""
    return isinstance(optimizer, (Adam, SGD)) and not optimizer._optimizer_step_pre_hooks


class OverlappedUpdate:
    """Updates the parameters of one module after the other in a thread, in the order of their use.

    A module's forward pass waits for its own parameters: results are those of an update before the
    pass. An update cannot start earlier: the norm of all gradients decides how much it clips them.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        owned: Mapping[Module, Sequence[Parameter]],
        device: torch.device,
    ):
        """`owned`: the trained parameters of each module that has a forward pass of its own.

        `device`: of the forward pass.
        """
        self._optimizer = optimizer
        self._parts = {module: _by_group(optimizer, held) for module, held in owned.items()}
        self._order: dict[Module, None] = {}  # Modules in the order of the first forward pass
        self._running: dict[Module, Future[None]] = {}
        # A new thread is on GPU 0, where torch would open a context: 0.3 to 0.5 GB for each rank.
        use = None
        if device.type == "cuda":
            use = partial(torch.cuda.set_device, device)
        self._thread = ThreadPoolExecutor(1, "update", initializer=use)
        wait = torch.compiler.disable(self._wait_for)
        # Before the hook of FSDP, which copies the weights to the device.
        self._hooks = [m.register_forward_pre_hook(wait, prepend=True) for m in owned]

    def start(self, factor: Tensor | None) -> None:
        """Start to update with gradients times the scalar `factor`, and to clear them."""
        if factor is not None:
            factor = factor.cpu()
        all_groups = self._optimizer.param_groups
        for module in dict.fromkeys([*self._order, *self._parts]):
            # Copies: the loop sets the next learning rate in the groups themselves.
            parts = zip(all_groups, self._parts[module], strict=True)
            groups = [{**group, "params": part} for group, part in parts]
            self._running[module] = self._thread.submit(self._update, groups, factor)

    def wait(self) -> None:
        """Wait until all parameters are updated. Raises what the update raised."""
        for module in list(self._running):
            self._running.pop(module).result()

    def close(self) -> None:
        self._thread.shutdown()
        for hook in self._hooks:
            hook.remove()

    def _wait_for(self, module: Module, _inputs: Any) -> None:
        self._order[module] = None
        if module in self._running:
            self._running.pop(module).result()

    def _update(self, groups: list[dict[str, Any]], factor: Tensor | None) -> None:
        if factor is not None:
            parameters = chain.from_iterable(group["params"] for group in groups)
            scale(gradients_of(parameters), factor)
        all_groups = self._optimizer.param_groups
        self._optimizer.param_groups = groups
        try:
            self._optimizer.step()
            self._optimizer.zero_grad()
        finally:
            self._optimizer.param_groups = all_groups


def _by_group(optimizer: Optimizer, parameters: Sequence[Parameter]) -> list[list[Parameter]]:
    """The `parameters` in each group of the optimizer."""
    held = set(parameters)  # by identity
    return [[p for p in group["params"] if p in held] for group in optimizer.param_groups]
