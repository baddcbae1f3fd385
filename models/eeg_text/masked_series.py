"""Masked prediction of series: spans to mask, interpolation, and explained variance."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from numpy.random import Generator
from torch import Tensor

from gearshift.models.base import DataError

SHORTEST = 2
LONGEST = 8
"""Positions of a span."""


def draw_spans(
    rng: Generator,
    length: int,
    share: float,
) -> ndarray:
    """The mask of hidden positions, bool [length]: spans that cover `share` of them, rounded.

    A span has SHORTEST to LONGEST positions; at least one visible position lies between two spans.
    Too short a series has no span.
    """
    hidden = np.zeros(length, dtype=bool)
    lengths = _lengths(rng, round(share * length))
    visible = length - sum(lengths)
    while lengths and visible < len(lengths) + 1:
        visible += lengths.pop()
    if not lengths:
        return hidden
    # All arrangements of spans and visible positions are equally likely.
    before = np.sort(
        rng.choice(
            visible + 1,
            len(lengths),
            replace=False,
        )
    )
    ends = before + np.cumsum(lengths)
    for end, count in zip(
        ends,
        lengths,
        strict=True,
    ):
        hidden[end - count : end] = True
    return hidden


def check_share(share: float, length: int) -> None:
    """Raise DataError if no span fits into the `share` of `length` positions."""
    if round(share * length) < SHORTEST:
        least = -(-1000 * SHORTEST // length) / 1000
        raise DataError(
            f"model.mask_share={share:g} masks nothing: spans have at least {SHORTEST} positions, "
            f"samples at most {length}",
            where="model.mask_share",
            allowed=f"at least {least:g}",
            fix=f"--set model.mask_share={least:g}",
        )


def _lengths(rng: Generator, total: int) -> list[int]:
    """Lengths of spans that add up to `total`; empty if it is too small."""
    lengths = []
    while total >= SHORTEST:
        length = int(rng.integers(SHORTEST, LONGEST + 1))
        if total - length < SHORTEST:
            # The rest is too short for another span.
            length = total if total <= LONGEST else total - SHORTEST
        lengths.append(length)
        total -= length
    return lengths


def interpolate(series: Tensor, known: Tensor) -> Tensor:
    """`series` [batch, time, channel], interpolated linearly where `known` is False; on the CPU.

    `known` [batch, time]. Before the first and after the last known value, that value is repeated.
    """
    lines = series.numpy(force=True).copy()
    time = np.arange(lines.shape[1])
    for rows, is_known in zip(lines, known.numpy(force=True), strict=True):
        (at,) = np.nonzero(is_known)
        if len(at):
            for row in rows.T:
                row[:] = np.interp(time, at, row[at])
    return torch.from_numpy(lines)


def masked_counts(
    true: Tensor,
    guess: Tensor,
    lines: Tensor,
    is_chosen: Tensor,
) -> Tensor:
    """Over the values where `is_chosen` is True: their number, sum and sum of squares, and the
    squared errors of the prediction `guess` and of the interpolation `lines`; float64.
    """
    chosen = is_chosen.cpu()
    # On the CPU: MPS has no float64.
    true, guess, lines = (tensor.cpu()[chosen].double() for tensor in (true, guess, lines))
    parts = (
        torch.ones_like(true),
        true,
        true**2,
        (guess - true) ** 2,
        (lines - true) ** 2,
    )
    return torch.stack([part.sum() for part in parts])


def masked_scores(sums: Mapping[str, Tensor]) -> dict[str, Any]:
    """The metrics of summed counts, those of `masked`.

    R² = 1 − squared errors ÷ variance of the same values: their mean scores 0.
    `val_interpolation_r2` is the R² of linear interpolation across the gaps. NaN: nothing is
    masked, or what is masked is constant.
    """
    count, total, squares, errors, of_lines = sums["masked"].double().tolist()
    count = count or nan
    variance = squares - total**2 / count
    if not variance > 1e-12 * squares:  # of rounding
        variance = nan
    return {
        "val_loss": errors / count,
        "val_masked_r2": 1 - errors / variance,
        "val_interpolation_r2": 1 - of_lines / variance,
    }
