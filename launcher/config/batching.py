"""Batch numbers: their product, their share of each process, and steps that an epoch keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config import errors
from gearshift.launcher.config.provenance import (
    BATCH_SETTINGS,
    MODE_LAYER,
    Batching,
    KeySets,
    Origin,
    Resolved,
    Values,
)

GLOBAL, MICRO, ACCUMULATION = BATCH_SETTINGS
LEAST = "train.least_steps"
MOST_DROPPED = 0.02
"""Share of the samples that a proposed global batch may drop in each epoch."""


def solve_batching(values: Values, keys: KeySets, world_size: int) -> Batching:
    """The numbers for a world size.

    The product of micro-batch and accumulation on one process is the global batch; more
    processes reduce accumulation first, then micro-batch. Raises SettingsError.
    """
    users = [key for key in BATCH_SETTINGS if key in keys.user and values[key].value is not None]
    total, *parts = (values[key].value or 1 for key in BATCH_SETTINGS)
    micro = parts[0]
    product = parts[0] * parts[1]
    if values[GLOBAL].value is None or (users and GLOBAL not in users):
        total = product
    elif {MICRO, ACCUMULATION} <= {*users} and product != total:
        problem = f"{GLOBAL} {total} is not {MICRO} {micro} × {ACCUMULATION} {parts[1]}"
        allowed = f"{product}, or two of the three"
        raise _error(values, GLOBAL, problem, BATCH_SETTINGS, allowed, new=product)
    else:
        for key, part in zip((MICRO, ACCUMULATION), parts, strict=True):
            if key in users and total % part:
                problem = f"{GLOBAL} {total} is not a multiple of {key} {part}"
                new = largest_divisor(total, part)
                raise _error(values, key, problem, (GLOBAL, key), f"what divides {total}", new=new)
        is_divided = ACCUMULATION in users and MICRO not in users
        micro = total // parts[1] if is_divided else largest_divisor(total, micro)
    if total % world_size:
        tied = users or [MICRO, ACCUMULATION]
        problem = f"a global batch of {total} cannot be split among {world_size} processes"
        allowed = f"a multiple of {world_size}; or {largest_divisor(total, world_size)} processes"
        fix = batch_line(
            values, keys, micro, max(world_size, round(total / world_size) * world_size)
        )
        raise _error(values, tied[0], problem, tied, allowed, fix=fix)
    micro = largest_divisor(total // world_size, micro)
    return Batching(total, micro, total // world_size // micro, world_size)


def halvings(numbers: Batching) -> Iterator[Batching]:
    """The same global batch with half the micro-batch at most, again and again down to 1."""
    share = numbers.micro_batch * numbers.accumulation
    while (micro := numbers.smaller) is not None:
        numbers = replace(numbers, micro_batch=micro, accumulation=share // micro)
        yield numbers


def larger(numbers: Batching) -> Iterator[Batching]:
    """The same global batch with larger micro-batches, the largest first."""
    share = numbers.micro_batch * numbers.accumulation
    for micro in range(share, numbers.micro_batch, -1):
        if share % micro == 0:
            yield replace(numbers, micro_batch=micro, accumulation=share // micro)


def may_grow(resolved: Resolved) -> bool:
    """Whether the memory of a GPU may decide the micro-batch: neither user nor mode has set it."""
    is_set = not {MICRO, ACCUMULATION}.isdisjoint(resolved.keys.user | resolved.keys.mode)
    return resolved.device != "cpu" and resolved.batching.accumulation > 1 and not is_set


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(n for n in range(min(number, limit), 0, -1) if number % n == 0)


def proposed_batch(samples: int, max_samples: int, world_size: int) -> int | None:
    """The largest global batch up to `max_samples` that drops few of `samples` in each epoch.

    Of those that drop more than MOST_DROPPED, the one that drops fewest. None: each of the
    `world_size` processes needs a sample.
    """
    limit = min(max_samples, samples) // world_size * world_size
    sizes = range(limit, 0, -world_size)
    return min(
        sizes, key=lambda size: (max(MOST_DROPPED * samples, samples % size), -size), default=None
    )


def batch_line(values: Values, keys: KeySets, micro: int, total: int) -> str:
    """The options that set the global batch, with micro-batch and accumulation where they are set.

    What the user set is kept as far as it divides the batch; else there is a micro-batch `micro`.
    """
    new = {GLOBAL: total}
    (asked_micro, asked) = (values[MICRO].value, values[ACCUMULATION].value)
    if MICRO in keys.user and asked_micro is not None:
        new[MICRO] = micro = largest_divisor(total, asked_micro)
    if ACCUMULATION in keys.user and asked is not None:
        new[ACCUMULATION] = total // micro if MICRO in new else largest_divisor(total, asked)
    return " ".join(f"--set {key}={value}" for key, value in new.items())


def check_fills(resolved: Resolved, samples: int) -> None:
    """Raise SettingsError if the training `samples` do not fill one global batch."""
    numbers = resolved.batching
    if samples < numbers.global_batch:
        total = proposed_batch(samples, numbers.global_batch, numbers.world_size)
        fix = total and batch_line(resolved.values, resolved.keys, numbers.micro_batch, total)
        parts = {
            "value": numbers.global_batch,
            "allowed": f"1 to {samples}, or more data",
            "fix": fix,
        }
        message = f"{GLOBAL} {numbers.global_batch} exceeds the {samples} training samples"
        raise SettingsError([errors.about(resolved.values, GLOBAL, message, **parts)])


def _error(
    values: Values, key: str, message: str, keys: Sequence[str], allowed: str, **parts: Any
) -> SettingsError:
    """The error of numbers of `keys` that do not fit together."""
    where = "; ".join(errors.where(each, values[each].origin) for each in keys)
    return SettingsError(
        [errors.about(values, key, message, where=where, allowed=allowed, **parts)]
    )


_LR = "optim.lr"
_LENGTH = "train.max_steps"


def expected(resolved: Resolved) -> str | None:
    """What `fitted` may change once the samples are counted; None: nothing."""
    if not _may_shrink(resolved):
        return None
    smallest = _default_batch(resolved.keys)
    least = resolved.values[LEAST].value
    return (
        f"{GLOBAL}: less than {resolved.batching.global_batch} on little data, down to {smallest}, "
        f"so that an epoch keeps {least} steps ({LEAST})"
    )


def fitted(resolved: Resolved, samples: int) -> Resolved:
    """The run with a global batch for `samples` of training data, and a note if that is another.

    An epoch, or a run that is shorter than one, keeps train.least_steps: a mode's larger batch
    shrinks to a multiple of the default's, at least to the default's. The learning rate follows the
    square root of the batch, as far as the default's (Hoffer, Hubara and Soudry, Train longer,
    generalize better, 2017, section 4). A limit of steps keeps its samples. What the user set
    stays. The settings of the result have no least_steps: a resumed run keeps its batch.
    """
    values = resolved.values
    keys = resolved.keys
    least = resolved.values[LEAST].value
    if least is None:
        return resolved
    notes = list(resolved.notes)
    changes = dict[str, float | None]({LEAST: None})
    old = resolved.batching.global_batch
    lr = values[_LR].value
    steps = values[_LENGTH].value
    is_limited = steps is not None and _LENGTH not in keys.user
    seen = min(samples, steps * old) if is_limited else samples
    unit = math.lcm(_default_batch(keys), resolved.world_size)
    new = max(unit, seen // least // unit * unit)
    if _may_shrink(resolved) and new < old:
        if _LR not in keys.user:
            changes[_LR] = float(
                f"{max(lr * math.sqrt(new / old), min(lr, keys.defaults[_LR])):.6g}"
            )
        if is_limited:
            changes[_LENGTH] = max(1, round(steps * old / new))
        others = "".join(
            f"; {key} {value:g}" for key, value in changes.items() if value is not None
        )
        what = (
            f"{samples:,} training samples" if seen == samples else f"{seen:,} samples of the run"
        )
        few = f"{what} are {seen // old} steps of {old}, and {LEAST} is {least}"
        notes.append(f"{GLOBAL}: {new} instead of {old}: {few}{others}")
        share = new // resolved.world_size
        micro = largest_divisor(share, resolved.batching.micro_batch)
        changes |= {GLOBAL: new, MICRO: micro, ACCUMULATION: share // micro}
    origin = Origin(MODE_LAYER, f"fitted to {samples:,} training samples")
    return resolved.changed(changes, origin, notes=notes)


def _may_shrink(resolved: Resolved) -> bool:
    """Whether the batch is larger than the default's, and not of the user."""
    is_set = not resolved.keys.user.isdisjoint(BATCH_SETTINGS)
    is_larger = resolved.batching.global_batch > _default_batch(resolved.keys)
    return resolved.values[LEAST].value is not None and not is_set and is_larger


def _default_batch(keys: KeySets) -> int:
    """The global batch of mode default."""
    total, micro, accumulation = (keys.defaults[key] for key in BATCH_SETTINGS)
    return int(total or (micro or 1) * (accumulation or 1))
