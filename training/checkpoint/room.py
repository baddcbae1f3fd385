"""Room for one checkpoint on the disk of a run folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from training.logging.quantities import size

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from training.settings import TrainingSettings

_SPARE_BYTES = 16 * 2**20
"""For the JSON files, and a margin for file systems that count whole blocks."""
_FP32_BYTES = 4


def lacking(folder: Path, needed: int) -> str | None:
    """`it needs 3.0 GiB, and FOLDER has 1.0 GiB free`; None: there is room for `needed` bytes.

    Reads the disk. Raises OSError.
    """
    free = shutil.disk_usage(folder).free
    if free >= needed + _SPARE_BYTES:
        return None
    return f"it needs {size(needed + _SPARE_BYTES)}, and {folder} has {size(free)} free"


def least_bytes(parameters: int | None) -> int:
    """What every run needs that saves: the weights in fp32, and the margin of `lacking`.

    None: the number of parameters is not known yet.
    """
    return _FP32_BYTES * (parameters or 0) + _SPARE_BYTES


def checkpoint_bytes(model: Module, settings: TrainingSettings, *, only_trained: bool) -> int:
    """The bytes of the tensors of a checkpoint of `model`.

    Weights and optimizer slots in fp32, and the weights once more in a checkpoint with a score.
    `only_trained`: frozen weights are left out, as with LoRA. Before an engine has placed `model`.
    """
    save, evaluate = settings.save, settings.eval
    has_score = save.keep_best > 0 and bool(evaluate.every or evaluate.each_epoch or evaluate.last)
    from torch.nn import Parameter  # this module also serves checks before torch is imported

    stored = model.state_dict(keep_vars=True).values()
    buffers = sum(tensor.nbytes for tensor in stored if not isinstance(tensor, Parameter))
    total = 0
    for parameter in model.parameters():
        if parameter.requires_grad or not only_trained:
            total += parameter.numel() * (2 if has_score else 1)
        if parameter.requires_grad and parameter.numel():
            total += _slot_elements(parameter, settings)
            total += parameter.numel() if settings.train.ema is not None else 0
    return _FP32_BYTES * total + buffers * (2 if has_score else 1)


def _slot_elements(parameter: Tensor, settings: TrainingSettings) -> int:
    """The elements of the optimizer slots of a parameter; of Muon those of its momentum only."""
    optim, count = settings.optim, parameter.numel()
    if optim.name == "adafactor" and parameter.ndim > 1:
        return count // parameter.shape[-1] + count // parameter.shape[-2]
    if optim.name == "sgd":
        return count if optim.used_momentum else 0
    return 2 * count if optim.name == "adamw" else count
