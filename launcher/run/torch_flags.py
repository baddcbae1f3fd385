"""Switches of torch that hold for a whole process, set for one run and put back after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training import seeds


@contextmanager
def modes(*, deterministic: bool, debug: bool) -> Iterator[None]:
    """Deterministic algorithms, and the search for the source of a NaN, while it is open.

    A run from Python leaves torch as it found it.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.is_anomaly_enabled(),
    )
    if deterministic:
        seeds.make_deterministic()
    if debug:
        seeds.detect_anomalies()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[2:4]
        torch.autograd.set_detect_anomaly(before[4])
