"""Which device a process computes on."""

from __future__ import annotations

import os

import torch

from engines.base import EngineError

_VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}
"""The variables that name the devices which a process sees."""


def pick_device(setting: str, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """The device of the process `local_rank` of `local_size` on this machine.

    `setting` is auto, cuda, xpu, mps or cpu; auto takes the first of that order that is there.
    Raises EngineError where the device, or one for each process, is missing.
    """
    counts = devices()
    if setting == "auto":
        # One Apple GPU cannot be shared by processes that train together: no backend of
        # torch.distributed carries its tensors.
        wanted = next(
            kind for kind in counts if counts[kind] and (kind != "mps" or local_size == 1)
        )
    elif setting in counts:
        wanted = setting
    else:
        raise EngineError(f"device '{setting}' is not known; legal: auto, {', '.join(counts)}")
    if wanted == "cpu":
        return torch.device("cpu")
    there = counts[wanted]
    if there == 0:
        present = ", ".join(_describe(kind, count) for kind, count in counts.items() if count)
        raise EngineError(f"device '{wanted}' is not here; this machine has: {present}")
    if 0 < there < local_size and os.environ.get(_VISIBLE.get(wanted, ""), ""):
        # Somebody gives each process devices of its own (srun --gpus-per-task, a wrapper script).
        # Whether it is so, the ranks find out when they meet: engines/meeting.py.
        return torch.device(wanted, 0)
    if local_size > there or local_rank >= there:
        raise EngineError(
            f"device '{wanted}' for {local_size} processes: this machine has {there}; "
            f"start at most {there}, or choose device cpu"
        )
    return torch.device("mps") if wanted == "mps" else torch.device(wanted, local_rank)


def devices() -> dict[str, int]:
    """How many devices of each kind this process can use, best kind first; there is one CPU."""
    return {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "xpu": torch.xpu.device_count() if torch.xpu.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }


def use(device: torch.device) -> None:
    """Make `device` the one that allocations without an index go to."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif device.type == "xpu":
        torch.xpu.set_device(device)


def identity(device: torch.device) -> str:
    """What the very piece of hardware is called, whichever number it has; empty: not known."""
    if device.type != "cuda":
        return ""
    entries = os.environ.get(_VISIBLE["cuda"], "").split(",")
    own = entries[device.index or 0].strip() if (device.index or 0) < len(entries) else ""
    if own.startswith("MIG-"):  # several of them are parts of one GPU
        return own
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))


def _describe(kind: str, count: int) -> str:
    return kind if count == 1 else f"{count} {kind}"
