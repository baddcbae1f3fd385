"""Batch numbers: their product, their share of each process, and steps that an epoch keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gearshift.launcher.base.diagnostics import SettingsError, counted, plain
from gearshift.launcher.config.provenance import (
    BATCH_SETTINGS,
    RESUMED_LAYER,
    Batching,
    KeySets,
    Resolved,
    Values,
)

SHARES = "engine.shares"
GLOBAL, MICRO, ACCUMULATION = BATCH_SETTINGS
LEAST = "train.least_steps"


def solve_batching(values: Values, keys: KeySets, world_size: int) -> Batching:
    """The numbers for a world size.

    The product of micro-batch and accumulation on one process is the global batch; more
    processes reduce accumulation first, then micro-batch. Raises SettingsError.
    """
    numbers = {key: values[key].value for key in BATCH_SETTINGS}
    users = [key for key in BATCH_SETTINGS if key in keys.user and numbers[key] is not None]
    factors = [key for key in (MICRO, ACCUMULATION) if key in users]
    if factors and GLOBAL not in users:
        numbers[GLOBAL] = None  # that of a mode
    total = samples_of(numbers)
    micro = numbers[MICRO] or 1
    if GLOBAL in users:
        part = math.prod(numbers[key] for key in factors)
        if total % part or (len(factors) == 2 and part != total):
            key = GLOBAL
            new = part
            if len(factors) == 1:  # then the global batch stays
                key = factors[0]
                new = largest_divisor(total, part)
            raise _error(
                values,
                key,
                f"{GLOBAL} {total} does not fit "
                + " × ".join(f"{factor} {numbers[factor]}" for factor in factors),
                f"the product {MICRO} × {ACCUMULATION}, or two of the three",
                new=new,
            )
        if ACCUMULATION in users:
            micro = total // numbers[ACCUMULATION]
    if total % world_size:
        divisible = max(world_size, round(total / world_size) * world_size)
        line = batch_line(keys, micro, divisible)
        if RESUMED_LAYER in {values[key].origin.layer for key in users}:
            line += " --reset data"  # a resume keeps its batch otherwise
        raise _error(
            values,
            users[0] if users else MICRO,
            f"a global batch of {total} cannot be split among {world_size} processes",
            f"a multiple of {world_size}; or {largest_divisor(total, world_size)} processes",
            fix=line,
        )
    solved = split(total, micro, world_size)
    _check_shares(values, solved)
    return solved


def split(total: int, micro: int, world_size: int) -> Batching:
    """The numbers of a global batch of `total` samples, with `micro` at most in a micro-batch."""
    share = total // world_size
    micro = largest_divisor(share, micro)
    return Batching(total, micro, share // micro, world_size)


def _check_shares(values: Values, numbers: Batching) -> None:
    """Raise SettingsError for shares that do not give each process whole samples."""
    shares = values[SHARES].value
    if not isinstance(shares, list):
        return
    from gearshift.training.shares import apportion  # for ranks that are not equal

    total = numbers.global_batch
    ranks = numbers.world_size
    weights = [max(share, 0.01) for share in shares] + [1] * ranks
    nearest = apportion(total, weights[:ranks], numbers.accumulation)
    if [samples * sum(shares) for samples in nearest] == [share * total for share in shares]:
        return
    raise _error(
        values,
        SHARES,
        f"{SHARES} {plain(shares)} cannot split {numbers} into whole samples of each process",
        f"{counted(ranks, 'whole number')} above 0, such that no micro-batch is empty",
        new=[samples // math.gcd(*nearest) for samples in nearest],
    )


def halvings(numbers: Batching) -> Iterator[Batching]:
    """The same global batch with half the micro-batch at most, again and again down to 1."""
    while numbers.smaller is not None:
        numbers = numbers.divided(numbers.smaller)
        yield numbers


def samples_of(numbers: Mapping[str, Any]) -> int:
    """The global batch of settings: as it is set, or what one process takes."""
    return numbers.get(GLOBAL) or (numbers[MICRO] or 1) * (numbers[ACCUMULATION] or 1)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(n for n in range(min(number, limit), 0, -1) if number % n == 0)


def batch_line(keys: KeySets, micro: int, total: int) -> str:
    """The options that set the global batch, with its factors where the user set one of them."""
    line = f"--set {GLOBAL}={total}"
    if keys.user.isdisjoint((MICRO, ACCUMULATION)):
        return line
    micro = largest_divisor(total, micro)
    return f"{line} --set {MICRO}={micro} --set {ACCUMULATION}={total // micro}"


def check_fills(resolved: Resolved, samples: int) -> None:
    """Raise SettingsError if the training `samples` do not fill one global batch."""
    numbers = resolved.batching
    batch = numbers.global_batch
    if samples >= batch:
        return
    total = samples - samples % numbers.world_size
    raise _error(
        resolved.values,
        GLOBAL,
        f"{GLOBAL} {batch} exceeds the {samples} training samples",
        f"1 to {samples}, or more data",
        value=batch,
        fix=batch_line(resolved.keys, numbers.micro_batch, total) if total else None,
    )


def _error(values: Values, key: str, message: str, allowed: str, **fields: Any) -> SettingsError:
    """The error of numbers that do not fit together, at the setting `key`."""
    from gearshift.launcher.config import errors

    return SettingsError([errors.about(values, key, message, allowed=allowed, **fields)])
