"""Seeds derived from the seed of the run, one per purpose, so that no generator state is saved."""

from __future__ import annotations

import random
from collections.abc import MutableMapping
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_BITS = 63


def derive(seed: int, purpose: str, *numbers: int) -> int:
    """A seed in [0, 2**63) for `purpose` and `numbers`, independent of all others.

    The same on every machine and in every version of Python.
    """
    text = ":".join((str(seed), purpose, *map(str, numbers)))
    digest = blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> (64 - _BITS)


def seed_weights(seed: int) -> None:
    """Seed torch for the initial weights of a model: the same on every rank."""
    import torch

    torch.manual_seed(derive(seed, "weights"))


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seed all global generators for one step: dropout depends on seed, step and rank only.

    A resumed run therefore draws the same numbers as an unbroken one. Python and numpy are seeded
    too, for custom tasks.
    """
    import torch

    number = derive(seed, "step", step, rank)
    _seed_host(number)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)


def seed_sample(seed: int, epoch: int, index: int) -> None:
    """Seed the global generators of a loader worker for one sample, as transforms use them.

    They draw the same numbers in any worker, on any rank and after a resume.
    """
    _seed_host(derive(seed, "transforms", epoch, index))


def _seed_host(number: int) -> None:
    import numpy as np
    import torch

    random.seed(number)
    np.random.seed(number & 0xFFFF_FFFF)
    # torch.manual_seed would visit every kind of device and every GPU, twenty times the cost.
    torch.default_generator.manual_seed(number)


def make_deterministic(environment: MutableMapping[str, str]) -> None:
    """Make torch use deterministic algorithms only, for the rest of the process.

    Sets a variable of cuBLAS in `environment`, the environment of this process. cuBLAS reads it
    once: call this before the first work on a GPU.
    """
    import torch

    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
