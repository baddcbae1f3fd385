"""The optimizer spec of a run; engines build the optimizer once they have placed parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from gearshift.engines.base import KEEPS_FP32, LR_FACTOR, PART, EngineError, OptimizerSpec
from gearshift.models.base import HasOptimizer
from gearshift.training.callbacks.base import Json
from gearshift.training.settings import LOW_BIT_LEAST

if TYPE_CHECKING:
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

    from gearshift.engines.base import World
    from gearshift.training.optim.groups import Factor
    from gearshift.training.optim.shards import Groups
    from gearshift.training.settings import Optim, TrainingSettings


# Adafactor scales its steps by the root mean square of a weight, but at least by this. At 1, steps
# equal the learning rate, as with AdamW, for all smaller weights.
_ABSOLUTE = 1.0


def spec(
    settings: TrainingSettings,
    model: Module,
    world: World,
    blocks: Sequence[Module] = (),
    task: object = None,
) -> OptimizerSpec:
    """How to optimize `model`: weights with two or more axes decay, others do not.

    Muon updates the matrices of `blocks`. Empty groups are omitted: some engines do not accept
    them. A `task` may have its own optimizer. Raises EngineError if there is no matrix, and
    SettingError for a part that the model does not have.
    """
    if isinstance(task, HasOptimizer):
        clip_norm = settings.optim.clip_norm
        plain = OptimizerSpec([{}], lambda name, p: 0, partial(_of_task, task), clip_norm)
    else:
        plain = _by_settings(settings.optim, model, blocks, task)
    if settings.train.on_nonfinite == "stop":
        return plain
    from gearshift.training.optim.guarded import guarded

    return guarded(plain, world)


def _by_settings(
    optim: Optim,
    model: Module,
    blocks: Sequence[Module],
    task: object,
) -> OptimizerSpec:
    matrices = _matrices(model, blocks) if optim.name == "muon" else set()
    factors: Mapping[str, Factor] = {}
    if optim.groups or optim.layer_decay is not None:
        from gearshift.training.optim.groups import lr_factors  # where a part has a factor

        factors = lr_factors(optim, model, task)
    least = 0
    if optim.name == "adamw" and optim.state != "fp32":
        least = LOW_BIT_LEAST

    def kind(name: str, parameter: Parameter) -> tuple[bool, bool, bool, Factor | None]:
        is_large = parameter.numel() >= least
        return name in matrices, parameter.ndim >= 2, is_large, factors.get(name)

    trained = [kind(n, p) for n, p in model.named_parameters() if p.requires_grad]
    # In the order of groups without factors: a checkpoint fits both.
    order = sorted(dict.fromkeys(trained), key=lambda each: each[:3], reverse=True)
    options = []
    for is_matrix, decays, is_large, factor in order:
        option: Json = {"weight_decay": optim.weight_decay if decays else 0.0}
        if is_matrix:
            option["momentum"] = optim.used_momentum
        if not is_large:
            option[KEEPS_FP32] = True
        if factor is not None:
            option[PART], option[LR_FACTOR] = factor
        options.append(option)
    return OptimizerSpec(
        options,
        lambda name, p: order.index(kind(name, p)),
        _build(optim),
        optim.clip_norm,
    )


def _of_task(task: HasOptimizer, groups: Groups) -> Optimizer:
    """The optimizer that `task` makes of all parameters. Raises EngineError."""
    parameters = groups[0]["params"]
    what = f"{type(task).__name__}.optimizer"
    optimizer = task.optimizer(parameters)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise EngineError(
            f"{what} returns a {type(optimizer).__name__}, not a torch.optim.Optimizer"
        )
    ids = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    if sorted(ids) != sorted(map(id, parameters)):
        raise EngineError(
            f"{what} has {len(ids)} parameters, and the model trains {len(parameters)}; "
            "freeze the others in build with requires_grad_(False)"
        )
    if isinstance(optimizer, torch.optim.Adafactor) and _are_sharded(parameters):
        raise EngineError(
            f"{what} is Adafactor, which needs whole rows;"
            " use an engine that keeps all weights on each rank"
        )
    return optimizer


def _matrices(model: Module, blocks: Sequence[Module]) -> set[str]:
    """The names of the weights with two axes in `blocks`, but embeddings."""
    inside: set[Parameter] = set()
    for block in blocks:
        for module in block.modules():
            if not isinstance(module, torch.nn.Embedding):
                inside.update(module.parameters(recurse=False))
    matrices = {n for n, p in model.named_parameters() if p.ndim == 2 and p in inside}
    if not matrices:
        raise EngineError(
            "optim.name=muon updates the weights of blocks that are matrices;"
            " this model has none; use adamw"
        )
    return matrices


def _build(settings: Optim) -> Callable[[Groups], Optimizer]:
    lr = settings.lr
    if settings.name == "sgd":
        return partial(_fastest, torch.optim.SGD, lr=lr, momentum=settings.used_momentum)
    if settings.name == "adafactor":
        return partial(torch.optim.Adafactor, lr=lr, eps=(None, _ABSOLUTE))
    kind: Callable[..., Optimizer] = torch.optim.AdamW
    if settings.name == "muon":
        from gearshift.training.optim.muon import Muon  # imports torch.distributed.tensor

        kind = Muon
    elif settings.state != "fp32":
        from gearshift.training.optim.low_bit import LowBitAdamW  # the same

        kind = partial(LowBitAdamW, state=settings.state)
    return partial(
        _fastest,
        kind,
        lr=lr,
        betas=tuple(settings.betas),
        eps=settings.eps,
    )


def _fastest(kind: Callable[..., Optimizer], groups: Groups, **options: Any) -> Optimizer:
    """The fused optimizer, or the default implementation of torch if there is no fused kernel."""
    parameters = [p for group in groups for p in group["params"]]
    # "aten._fused_sgd_ does not have a sharding strategy" (torch 2.13, FSDP)
    lacks_kernel = kind is torch.optim.SGD and _are_sharded(parameters)
    return kind(groups, fused=not lacks_kernel, **options)


def _are_sharded(parameters: Iterable[Parameter]) -> bool:
    return any(hasattr(parameter, "to_local") for parameter in parameters)
