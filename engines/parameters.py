"""Which parameters, buffers and models an engine can train, and what parameters do beside."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import Embedding, EmbeddingBag, Module, Parameter
from torch.nn.parameter import is_lazy

from gearshift.engines.base import Blocks, EngineError
from gearshift.engines.catalog import ENGINES, Entry
from gearshift.engines.state import read_buffers, stored_buffers


def with_dense_tensors(build: Callable[[], Module]) -> Module:
    """The model of `build`, with dense gradients: the optimizers of no engine take sparse ones.

    Raises EngineError for a parameter or buffer without a shape, or a sparse one.
    """
    model = build()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise EngineError(
                f"'{name}' has no shape before the first batch; call the model with a sample in "
                "build(), or give its module the number of inputs"
            )
        if tensor.layout is not torch.strided:
            raise EngineError(
                f"'{name}' is a sparse tensor, which no engine sends; keep it dense, and make the "
                "sparse one in forward()"
            )
    for module in model.modules():
        if isinstance(module, Embedding | EmbeddingBag):
            module.sparse = False
    return model


def check_parameters(
    model: Module, blocks: Blocks, engine: str, processes: int, storable: Collection[torch.dtype]
) -> None:
    """Raise EngineError for what `engine` does not train as it is; it names engines that do.

    Weights are float32 in most models; other types, and several of them, need some engines; so do
    gradient hooks of parameters, and weights that change where they are read. `storable`: what a
    checkpoint can hold.
    """
    buffers = read_buffers(stored_buffers(model))
    for name, tensor in (*model.named_parameters(), *buffers.items()):
        if tensor.is_complex():
            raise EngineError(
                f"'{name}' is {_kind(tensor)}, and checkpoints hold real numbers; keep what "
                "torch.view_as_real makes of it, and call torch.view_as_complex in forward()"
            )
        if tensor.dtype not in storable:
            raise EngineError(
                f"'{name}' is {_kind(tensor)}, which checkpoints do not hold; keep it in another "
                "type, or as a buffer with persistent=False, which build() computes again"
            )
    reason = _reason(model, blocks, ENGINES[engine], processes)
    if reason is None:
        return
    able = []
    for name, entry in ENGINES.items():
        if _reason(model, blocks, entry, entry.processes or processes) is None:
            able.append(f"{name} with one process" if entry.processes else name)
    raise EngineError(f"{reason}; engines that train it: {', '.join(able) or 'none'}")


def _reason(model: Module, blocks: Blocks, entry: Entry, processes: int) -> str | None:
    """Why an engine cannot train `model`; None: it can."""
    named = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.numel():
            named[name] = parameter
    for name, parameter in named.items():
        what = f"engine {entry.name} does not train parameter '{name}'"
        if parameter.dtype is torch.float16 and not entry.has_fp32_copies:
            return (
                f"parameter '{name}' is float16, which loses most updates; keep weights in float32 "
                "and compute with  --precision fp16"
            )
        if parameter.dtype is torch.float64 and entry.has_fp32_copies:
            return f"{what} in float64: it would round it to float32"
        for method in gradient_hooks(parameter):
            if method not in entry.gradient_hooks:
                return f"{what} with the hook of its {method}, which it would lose"
    # What a forward pass changes in a weight stays only if one process updates the weight itself.
    is_whole = entry.placement.weights == "replicated" and not entry.has_fp32_copies
    if processes > 1 or not is_whole:
        for name, module in model.named_modules():
            if isinstance(module, Embedding | EmbeddingBag) and module.max_norm is not None:
                weight = f"{name}.weight".lstrip(".")
                return (
                    f"engine {entry.name} does not train parameter '{weight}' with max_norm, "
                    "which changes rows where they are read, on each process others"
                )
    for group in filter(None, _joined(named, blocks, entry)):
        widest = _kind(max(group.values(), key=lambda p: p.dtype is torch.float32))
        for name, parameter in group.items():
            kind = _kind(parameter)
            if kind != widest and not {kind, widest} <= entry.mixed_types:
                return (
                    f"engine {entry.name} does not train parameter '{name}', which is {kind}, "
                    f"together with others that are {widest}"
                )
    return None


def _joined(
    named: Mapping[str, Parameter], blocks: Blocks, entry: Entry
) -> Iterator[Mapping[str, Parameter]]:
    left = dict(named)
    if entry.types_by_block:
        for block in blocks:
            inside = set(block.parameters())
            names = [name for name, parameter in left.items() if parameter in inside]
            yield {name: left.pop(name) for name in names}
    yield left


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def gradient_hooks(parameter: Tensor) -> list[str]:
    """The methods by which `parameter` got its gradient hooks."""
    hooks = {
        "register_hook": parameter._backward_hooks,
        "register_post_accumulate_grad_hook": parameter._post_accumulate_grad_hooks,
    }
    return [method for method, registered in hooks.items() if registered]


class UnchangedWeights:
    """Raises EngineError for a forward pass before the first update that changes a trained weight.

    Such a change is lost where an engine updates copies or shards, and where processes read other
    samples, their weights drift apart. What `Embedding(max_norm=...)` does is seen by its version.
    """

    def __init__(self) -> None:
        self._versions: list[tuple[str, Tensor, int]] | None = []

    def note(self, named: Iterable[tuple[str, Tensor]]) -> None:
        """Call before a forward pass, with the tensors that it will read."""
        if self._versions is not None:
            self._versions += [(name, p, p._version) for name, p in named if p.requires_grad]

    def check(self) -> None:
        """Call after the forward pass."""
        if self._versions is None:
            return
        for name, parameter, version in self._versions:
            if parameter._version != version:
                raise EngineError(
                    f"a forward pass changes the parameter '{name}' in place, which trains "
                    "otherwise on several processes and under engines that shard; engines that "
                    "train it: local with one process"
                )
        self._versions.clear()

    def end(self) -> None:
        """Look at no further pass."""
        self._versions = None


def is_sharded(tensor: Tensor) -> bool:
    """Whether `tensor` is a DTensor. Without importing them: that takes half a second."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)
