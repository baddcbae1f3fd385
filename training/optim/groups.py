"""Learning rates of the parts of a model, as factors of `optim.lr`: where a run sets some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import chain
from typing import TYPE_CHECKING

from gearshift.engines.base import LR_FACTOR, PART
from gearshift.models.base import LAYERS, HasParts
from gearshift.training.settings import SettingError

if TYPE_CHECKING:
    from torch.nn import Module, Parameter

    from gearshift.engines.base import OptimizerSpec
    from gearshift.training.settings import Optim

_EMBEDDING = "embedding"


def with_factors(
    spec: OptimizerSpec, factors: Mapping[str, tuple[str, float]], model: Module
) -> OptimizerSpec:
    """`spec` with its groups divided by `factors`, what `lr_factors` returns."""

    def kind(name: str, parameter: Parameter) -> tuple[int, tuple[str, float] | None]:
        return spec.group_of(name, parameter), factors.get(name)

    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    order = list(dict.fromkeys(kind(*each) for each in trained))
    order.sort(key=lambda each: each[0])  # as without factors: a checkpoint fits both
    options = [
        {**spec.options[group], **({PART: of[0], LR_FACTOR: of[1]} if of else {})}
        for group, of in order
    ]
    return replace(spec, options=options, group_of=lambda n, p: order.index(kind(n, p)))


def lr_factors(optim: Optim, model: Module, task: object) -> dict[str, tuple[str, float]]:
    """The part and the factor of each trained parameter that `optim` gives a factor, by name.

    With `optim.layer_decay` d, a layer has d^n, where n counts from the last layer, 1, to the first
    one; embeddings are below it, and anything else has 1. Each layer is a part of its own. Sources:
    Clark et al., ELECTRA, 2020, appendix A; Bao et al., BEiT, 2022, appendix H. Raises
    SettingError.
    """
    parts = _trained_parts(model, task)
    decay = optim.layer_decay
    factors = dict[str, tuple[str, float]]()
    if unknown := next((part for part in optim.groups if part not in parts), None):
        raise SettingError(
            "optim.groups",
            dict(optim.groups),
            f"names {unknown!r}, and the model trains no such part",
            ", ".join(parts) or "none: all parameters belong to the model itself",
            did_you_mean=next(iter(get_close_matches(unknown, parts, n=1)), None),
        )
    if decay is not None and LAYERS not in parts:
        raise SettingError(
            "optim.layer_decay",
            decay,
            f"needs a stack of {LAYERS}, and this model has none in one order that it trains",
            "for family language and custom tasks with such a part",
            "set the factor of each part in optim.groups: " + ", ".join(parts),
        )
    count = len(parts.get(LAYERS, ()))
    for part, modules in parts.items():
        for number, names in enumerate(modules):
            label = part
            factor = optim.groups.get(part, 1.0)
            if decay is not None and part == LAYERS:
                label = f"{part}.{number}"
                factor = factor * decay ** (count - number)
            elif decay is not None and part == _EMBEDDING:
                factor *= decay ** (count + 1)
            elif part not in optim.groups:
                continue
            factors |= dict.fromkeys(names, (label, factor))
    return factors


def _trained_parts(model: Module, task: object) -> dict[str, list[list[str]]]:
    """The names of the trained parameters of each part, by its modules; of the first, if shared.

    The parts that the task names, and children of the model that have nothing in common with them.
    """
    parts: dict[str, Sequence[Module]] = (
        dict(task.model_parts(model)) if isinstance(task, HasParts) else {}
    )
    named = {p for module in chain(*parts.values()) for p in module.parameters()}
    for name, child in model.named_children():
        if named.isdisjoint(child.parameters()):
            parts[name] = [child]
    left = {p: name for name, p in model.named_parameters() if p.requires_grad}
    held = {
        part: [[left.pop(p) for p in module.parameters() if p in left] for module in modules]
        for part, modules in parts.items()
    }
    return {part: modules for part, modules in held.items() if any(modules)}
