"""Learning rates of the parts of a model, as factors of `optim.lr`: where a run sets some."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from gearshift.models.base import LAYERS, HasParts
from gearshift.training.settings import SettingError

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.training.settings import Optim

_EMBEDDING = "embedding"
Factor = tuple[str, float]
"""A part, and the factor of its learning rate."""


def lr_factors(optim: Optim, model: Module, task: object) -> dict[str, Factor]:
    """The factor of each trained parameter that `optim` gives one, by name.

    With `optim.layer_decay` d, a layer has d^n, where n counts from the last layer, 1, to the first
    one; embeddings are below it, and anything else has 1. Each layer is a part of its own. Sources:
    Clark et al., ELECTRA, 2020, appendix A; Bao et al., BEiT, 2022, appendix H. Raises
    SettingError.
    """
    parts = _trained_parts(model, task)
    decay = optim.layer_decay
    for part in optim.groups:
        if part not in parts:
            raise SettingError(
                "optim.groups",
                dict(optim.groups),
                f"names {part!r}, and the model trains no such part",
                ", ".join(parts) or "none: all parameters belong to the model itself",
                did_you_mean=next(iter(get_close_matches(part, parts, n=1)), None),
            )
    if decay is not None and LAYERS not in parts:
        raise SettingError(
            "optim.layer_decay",
            decay,
            f"needs a stack of {LAYERS}, and this model has none in one order that it trains",
            "for family language and custom tasks with such a part",
            "set the factor of each part in optim.groups: " + ", ".join(parts),
        )

    factors: dict[str, Factor] = {}
    count = len(parts.get(LAYERS, ()))
    for part, modules in parts.items():
        for number, names in enumerate(modules):
            label = part
            factor = optim.groups.get(part, 1.0)
            if decay is not None and part == LAYERS:
                label = f"{part}.{number}"
                factor *= decay ** (count - number)
            elif decay is not None and part == _EMBEDDING:
                factor *= decay ** (count + 1)
            elif part not in optim.groups:
                continue
            factors |= dict.fromkeys(names, (label, factor))
    return factors


def _trained_parts(model: Module, task: object) -> dict[str, list[list[str]]]:
    """The names of the trained parameters of each part, by its modules; of the first, if shared.

    The parts that the task names, and what children of the model have beside them.
    """
    parts: dict[str, Sequence[Module]] = {}
    if isinstance(task, HasParts):
        parts |= task.model_parts(model)
    for name, child in model.named_children():
        parts.setdefault(name, [child])

    names = {p: name for name, p in model.named_parameters() if p.requires_grad}
    trained: dict[str, list[list[str]]] = {}
    for part, modules in parts.items():
        for module in modules:
            # Taken out, so that the first part with a shared parameter has it alone.
            of_module = [names.pop(p) for p in module.parameters() if p in names]
            trained.setdefault(part, []).append(of_module)
    return {part: modules for part, modules in trained.items() if any(modules)}
