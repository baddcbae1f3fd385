"""Batch numbers: their product, their share of each process, and steps that an epoch keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from gearshift.launcher.base.diagnostics import SettingsError, counted, plain
from gearshift.launcher.config.provenance import BATCH_SETTINGS, Batching, KeySets, Resolved, Values

SHARES = "engine.shares"
GLOBAL, MICRO, ACCUMULATION = BATCH_SETTINGS
LEAST = "train.least_steps"


def solve_batching(values: Values, keys: KeySets, world_size: int) -> Batching:
    """The numbers for a world size.

    The product of micro-batch and accumulation on one process is the global batch; more
    processes reduce accumulation first, then micro-batch. Raises SettingsError.
    """
    users = [key for key in BATCH_SETTINGS if key in keys.user and values[key].value is not None]
    total = values[GLOBAL].value
    micro = values[MICRO].value or 1
    accumulation = values[ACCUMULATION].value or 1
    product = micro * accumulation
    if total is None or (users and GLOBAL not in users):
        total = product
    elif MICRO in users and ACCUMULATION in users:
        if product != total:
            problem = f"{GLOBAL} {total} is not {MICRO} {micro} × {ACCUMULATION} {accumulation}"
            allowed = f"{product}, or two of the three"
            raise _error(values, problem, BATCH_SETTINGS, allowed, new=product)
    else:
        for key, part in ((MICRO, micro), (ACCUMULATION, accumulation)):
            if key in users and total % part:
                raise _error(
                    values,
                    f"{GLOBAL} {total} is not a multiple of {key} {part}",
                    (GLOBAL, key),
                    f"what divides {total}",
                    key=key,
                    new=largest_divisor(total, part),
                )
        micro = largest_divisor(total, micro)
        if ACCUMULATION in users:
            micro = total // accumulation
    if total % world_size:
        nearest = max(world_size, round(total / world_size) * world_size)
        raise _error(
            values,
            f"a global batch of {total} cannot be split among {world_size} processes",
            users or (MICRO, ACCUMULATION),
            f"a multiple of {world_size}; or {largest_divisor(total, world_size)} processes",
            fix=batch_line(values, keys, micro, nearest),
        )
    share = total // world_size
    micro = largest_divisor(share, micro)
    numbers = Batching(total, micro, share // micro, world_size)
    _check_shares(values, numbers)
    return numbers


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
        f"{SHARES} {plain(shares)} cannot split {numbers} into whole samples of each process",
        (SHARES,),
        f"{counted(ranks, 'whole number')} above 0, such that no micro-batch is empty",
        new=[samples // math.gcd(*nearest) for samples in nearest],
    )


def halvings(numbers: Batching) -> Iterator[Batching]:
    """The same global batch with half the micro-batch at most, again and again down to 1."""
    while numbers.smaller is not None:
        numbers = numbers.divided(numbers.smaller)
        yield numbers


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(n for n in range(min(number, limit), 0, -1) if number % n == 0)


def batch_line(values: Values, keys: KeySets, micro: int, total: int) -> str:
    """The options that set the global batch, with micro-batch and accumulation where they are set.

    What the user set is kept as far as it divides the batch; else there is a micro-batch `micro`.
    """
    users = {}
    for key in (MICRO, ACCUMULATION):
        if key in keys.user and values[key].value is not None:
            users[key] = values[key].value
    line = f"--set {GLOBAL}={total}"
    if MICRO in users:
        micro = largest_divisor(total, users[MICRO])
        line += f" --set {MICRO}={micro}"
    if ACCUMULATION in users:
        accumulation = total // micro
        if MICRO not in users:
            accumulation = largest_divisor(total, users[ACCUMULATION])
        line += f" --set {ACCUMULATION}={accumulation}"
    return line


def check_fills(resolved: Resolved, samples: int) -> None:
    """Raise SettingsError if the training `samples` do not fill one global batch."""
    numbers = resolved.batching
    batch = numbers.global_batch
    if samples >= batch:
        return
    total = samples - samples % numbers.world_size
    fix = None
    if total > 0:
        fix = batch_line(resolved.values, resolved.keys, numbers.micro_batch, total)
    raise _error(
        resolved.values,
        f"{GLOBAL} {batch} exceeds the {samples} training samples",
        (GLOBAL,),
        f"1 to {samples}, or more data",
        value=batch,
        fix=fix,
    )


def _error(
    values: Values,
    message: str,
    keys: Sequence[str],
    allowed: str,
    key: str | None = None,
    **fields: Any,
) -> SettingsError:
    """The error of numbers of `keys` that do not fit together, at `key` or the first of them."""
    from gearshift.launcher.config import errors

    where = "; ".join(errors.where(each, values[each].origin) for each in keys)
    diagnostic = errors.about(
        values, key or keys[0], message, where=where, allowed=allowed, **fields
    )
    return SettingsError([diagnostic])
