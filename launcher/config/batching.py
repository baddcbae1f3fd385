"""Solves the batch numbers: global batch = micro-batch × accumulation × world size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import errors
from launcher.config.provenance import (
    BATCH_SETTINGS,
    MODE_LAYER,
    USER_LAYERS,
    Batching,
    Resolved,
    Setting,
    Values,
)

GLOBAL, MICRO, ACCUMULATION = BATCH_SETTINGS
LEAST = "train.least_steps"
MOST_DROPPED = 0.02
"""Share of the samples that a proposed global batch may drop in each epoch."""


def solve_batching(values: Values, world_size: int) -> Batching:
    """The numbers for a world size.

    The product of micro-batch and accumulation on one process is the global batch; more
    processes reduce accumulation first, then micro-batch. Raises SettingsError.
    """
    total, micro = _at_one_process(values)
    if total % world_size:
        raise SettingsError([_no_share(values, total, world_size)])
    share = total // world_size
    micro = largest_divisor(share, micro)
    return Batching(total, micro, share // micro, world_size)


def _at_one_process(values: Values) -> tuple[int, int]:
    """Global batch and micro-batch of one process."""
    user_keys = {key for key in BATCH_SETTINGS if _is_set(values[key])}
    total, micro, accumulation = (values[key].value for key in BATCH_SETTINGS)
    micro, accumulation = micro or 1, accumulation or 1
    if total is None or (user_keys and GLOBAL not in user_keys):
        return micro * accumulation, micro
    if {MICRO, ACCUMULATION} <= user_keys and micro * accumulation != total:
        raise SettingsError([_contradiction(values)])
    for key, part in ((MICRO, micro), (ACCUMULATION, accumulation)):
        if key in user_keys:
            if total % part:
                raise SettingsError([_no_multiple(values, key, total, part)])
            return total, part if key == MICRO else total // part
    return total, largest_divisor(total, micro)


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
    layers = {
        origin.layer
        for key in (MICRO, ACCUMULATION)
        for _, origin in resolved.values[key].all_values
    }
    is_gpu, several = resolved.device != "cpu", resolved.batching.accumulation > 1
    return is_gpu and several and layers.isdisjoint((MODE_LAYER, *USER_LAYERS))


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(n for n in range(min(number, limit), 0, -1) if number % n == 0)


def nearest_multiple(number: int, of: int) -> int:
    """The multiple of `of` nearest to `number`, at least `of`."""
    return max(of, round(number / of) * of)


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


def batch_line(resolved: Resolved, total: int) -> str:
    """The options that set the global batch, with micro-batch and accumulation where they are set.

    What the user set is kept as far as it divides the batch.
    """
    values, micro = resolved.values, resolved.batching.micro_batch
    new = {GLOBAL: total}
    if _is_set(values[MICRO]):
        micro = largest_divisor(total, values[MICRO].value)
        new[MICRO] = micro
    if _is_set(values[ACCUMULATION]):
        asked = values[ACCUMULATION].value
        new[ACCUMULATION] = total // micro if MICRO in new else largest_divisor(total, asked)
    line = " ".join(f"--set {key}={value}" for key, value in new.items())
    return errors.as_typed(line, values)


def check_fills(resolved: Resolved, samples: int) -> None:
    """Raise SettingsError if the training `samples` do not fill one global batch."""
    numbers = resolved.batching
    if samples >= numbers.global_batch:
        return
    total = proposed_batch(samples, numbers.global_batch, numbers.world_size)
    error = errors.about(
        resolved.values,
        GLOBAL,
        f"{GLOBAL} {numbers.global_batch} exceeds the {samples} training samples",
        value=numbers.global_batch,
        allowed=f"1 to {samples}, or more data",
        fix=total and batch_line(resolved, total),
    )
    raise SettingsError([error])


def _is_set(value: Setting) -> bool:
    return value.is_of_user and value.value is not None


def _origins(values: Values, *keys: str) -> str:
    return "; ".join(errors.where(key, values[key].origin) for key in keys)


def _contradiction(values: Values) -> Diagnostic:
    micro, accumulation = values[MICRO].value, values[ACCUMULATION].value
    product = micro * accumulation
    line = errors.fix_line(GLOBAL, values[GLOBAL].origin, product)
    return errors.about_value(
        values,
        GLOBAL,
        f"is not {MICRO} {micro} × {ACCUMULATION} {accumulation}, which is {product}",
        where=_origins(values, *BATCH_SETTINGS),
        allowed="the global batch; or micro-batch and accumulation for one process",
        did_you_mean=str(product),
        fix=f"{line}  or remove one of the three",
    )


def _no_multiple(values: Values, key: str, total: int, part: int) -> Diagnostic:
    divisor = largest_divisor(total, part)
    line = errors.fix_line(key, values[key].origin, divisor)
    return errors.about(
        values,
        key,
        f"{GLOBAL} {total} is not a multiple of {key} {part}",
        where=_origins(values, GLOBAL, key),
        allowed=f"a {key.partition('.')[2]} that divides {total}",
        did_you_mean=str(divisor),
        fix=f"{line}  or  --set {GLOBAL}={nearest_multiple(total, part)}",
    )


def _no_share(values: Values, total: int, world_size: int) -> Diagnostic:
    multiple = nearest_multiple(total, world_size)
    keys = [key for key in BATCH_SETTINGS if _is_set(values[key])] or [MICRO, ACCUMULATION]
    return Diagnostic(
        f"a global batch of {total} cannot be split among {world_size} processes",
        key=keys[0],
        value=total,
        where=_origins(values, *keys),
        allowed=f"a multiple of {world_size}, or a number of processes that divides {total}",
        did_you_mean=f"{multiple}, or {largest_divisor(total, world_size)} processes",
        fix=f"--set {GLOBAL}={multiple}",
    )
