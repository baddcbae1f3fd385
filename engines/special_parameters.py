"""What parameters do beside holding values: gradient hooks, and changes in forward passes."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from torch import Tensor

from gearshift.engines.base import EngineError


def gradient_hooks(parameter: Tensor) -> list[str]:
    """The methods by which `parameter` got its gradient hooks."""
    hooks = {
        "register_hook": parameter._backward_hooks,
        "register_post_accumulate_grad_hook": parameter._post_accumulate_grad_hooks,
    }
    return [method for method, registered in hooks.items() if registered]


class UnchangedWeights:
    """Raises EngineError for a forward pass before the first update that changes a weight.

    Such a change is lost where an engine updates copies or shards, and where processes read other
    samples, their weights drift apart. What `Embedding(max_norm=...)` does is seen by its version.
    """

    def __init__(self) -> None:
        self._versions: list[tuple[str, Tensor, int]] | None = []

    def note(self, named: Iterable[tuple[str, Tensor]]) -> None:
        """Call before a forward pass, with the tensors that it will read."""
        if self._versions is not None:
            self._versions += [(name, p, p._version) for name, p in named]

    def check(self) -> None:
        """Call after the forward pass."""
        for name, parameter, version in self._versions or ():
            if parameter._version != version:
                raise EngineError(
                    f"a forward pass changes the parameter '{name}' in place, which trains "
                    "otherwise on several processes and under engines that shard; engines that "
                    "train it: local with one process"
                )
        if self._versions:
            self._versions.clear()

    def end(self) -> None:
        """Look at no further pass."""
        self._versions = None


def is_sharded(tensor: Tensor) -> bool:
    """Whether `tensor` is a DTensor. Without importing them: that takes half a second."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


DEFERRED = "_gearshift_deferred"


def is_deferred(tensor: Tensor) -> bool:
    """Whether `tensor` is a parameter whose values `write` will write."""
    return hasattr(tensor, DEFERRED)
