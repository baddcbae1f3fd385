"""Room for one checkpoint on the disk of a run folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.training.logging.quantities import size

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.training.settings import TrainingSettings

# For the JSON files, and a margin for file systems that count whole blocks.
_SPARE_BYTES = 16 * 2**20
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

    Weights and optimizer slots in fp32 or wider, and the weights once more in a checkpoint with a
    score. `only_trained`: frozen weights are left out, as with LoRA. Before an engine has placed
    `model`.
    """
    from torch.nn import Parameter  # this module also serves checks before torch is imported

    evaluate = settings.eval
    optim = settings.optim
    evaluates = evaluate.every or evaluate.each_epoch or evaluate.last
    copies = 2 if settings.save.keep_best > 0 and evaluates else 1
    total = 0
    for tensor in model.state_dict(keep_vars=True).values():
        if not isinstance(tensor, Parameter):
            total += tensor.nbytes * copies
    for parameter in model.parameters():
        size = parameter.numel() * max(_FP32_BYTES, parameter.itemsize)
        if parameter.requires_grad or not only_trained:
            total += size * copies
        if not parameter.requires_grad or not size:
            continue
        if settings.train.ema is not None:
            total += size
        if optim.name == "adamw":
            total += 2 * size
        elif optim.name == "adafactor" and parameter.ndim > 1:
            total += size // parameter.shape[-1] + size // parameter.shape[-2]
        elif optim.name != "sgd" or optim.used_momentum:  # of Muon the momentum only
            total += size
    return total
