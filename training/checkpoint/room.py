"""Room for one checkpoint on the disk of a run folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.training.logging.quantities import size

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.training.settings import TrainingSettings

_SPARE_BYTES = (
    16 * 2**20
)  # For the JSON files, and a margin for file systems that count whole blocks
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
    score.
    `only_trained`: frozen weights are left out, as with LoRA. Before an engine has placed `model`.
    """
    from torch.nn import Parameter  # this module also serves checks before torch is imported

    save = settings.save
    evaluate = settings.eval
    optim = settings.optim
    copies = (
        2 if save.keep_best > 0 and (evaluate.every or evaluate.each_epoch or evaluate.last) else 1
    )
    stored = model.state_dict(keep_vars=True).values()
    buffers = sum(tensor.nbytes for tensor in stored if not isinstance(tensor, Parameter))
    total = 0
    for parameter in model.parameters():
        count = parameter.numel() * max(1, parameter.itemsize // _FP32_BYTES)
        if parameter.requires_grad or not only_trained:
            total += count * copies
        if parameter.requires_grad and count:
            total += count if settings.train.ema is not None else 0
            if optim.name == "adafactor" and parameter.ndim > 1:
                total += count // parameter.shape[-1] + count // parameter.shape[-2]
            elif optim.name != "sgd" or optim.used_momentum:  # of Muon the momentum only
                total += 2 * count if optim.name == "adamw" else count
    return _FP32_BYTES * total + buffers * copies
