"""Solves the batch numbers: global batch = micro-batch × accumulation × world size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import errors
from launcher.config.provenance import BATCH_SETTINGS, USER_LAYERS, Batching, Resolved, Setting

GLOBAL, MICRO, ACCUMULATION = BATCH_SETTINGS


def solve_batching(values: Mapping[str, Setting], world_size: int) -> Batching:
    """The numbers for a world size.

    The product of micro-batch and accumulation on one process is the global batch; more
    processes reduce accumulation first, then micro-batch. Raises SettingsError.
    """
    at_one = _at_one_process(values)
    if at_one.global_batch % world_size:
        raise SettingsError([_no_share(values, at_one.global_batch, world_size)])
    share = at_one.global_batch // world_size
    micro = largest_divisor(share, at_one.micro_batch)
    return Batching(at_one.global_batch, micro, share // micro, world_size)


def halved(numbers: Batching) -> Batching | None:
    """The same global batch with at most half the micro-batch; None if that is 1 already."""
    micro = numbers.smaller
    if micro is None:
        return None
    share = numbers.micro_batch * numbers.accumulation
    return Batching(numbers.global_batch, micro, share // micro, numbers.world_size)


def halvings(numbers: Batching) -> Iterator[Batching]:
    """The same global batch with half the micro-batch at most, again and again down to 1."""
    smaller = halved(numbers)
    while smaller is not None:
        yield smaller
        smaller = halved(smaller)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(n for n in range(min(number, limit), 0, -1) if number % n == 0)


MOST_DROPPED = 0.02
"""Share of the samples that a proposed global batch may drop in each epoch."""


def proposed_batch(samples: int, max_samples: int, world_size: int) -> int | None:
    """The largest global batch up to `max_samples` that drops few of `samples` in each epoch.

    Of those that drop more than MOST_DROPPED, the one that drops fewest. None: each of the
    `world_size` processes needs a sample.
    """
    limit = min(max_samples, samples) // world_size * world_size
    sizes = range(limit, 0, -world_size)
    return min(
        sizes,
        key=lambda size: (max(MOST_DROPPED * samples, samples % size), -size),
        default=None,
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
        wanted = values[ACCUMULATION].value
        new[ACCUMULATION] = total // micro if MICRO in new else largest_divisor(total, wanted)
    line = " ".join(f"--set {key}={value}" for key, value in new.items())
    return errors.as_typed(line, values)


def check_fills(resolved: Resolved, samples: int) -> None:
    """Raise SettingsError if the training `samples` do not fill one global batch."""
    numbers = resolved.batching
    if samples >= numbers.global_batch:
        return
    total = proposed_batch(samples, numbers.global_batch, numbers.world_size)
    raise SettingsError(
        [
            errors.about(
                resolved.values,
                GLOBAL,
                f"{GLOBAL} {numbers.global_batch} exceeds the {samples} training samples",
                value=numbers.global_batch,
                allowed=f"1 to {samples}, or more data",
                fix=total and batch_line(resolved, total),
            )
        ]
    )


def nearest_multiple(number: int, of: int) -> int:
    """The multiple of `of` nearest to `number`, at least `of`."""
    return max(of, round(number / of) * of)


def _at_one_process(values: Mapping[str, Setting]) -> Batching:
    """The numbers for one process."""
    user_keys = {key for key in BATCH_SETTINGS if _is_set(values[key])}
    total, micro, accumulation = (values[key].value for key in BATCH_SETTINGS)
    micro, accumulation = micro or 1, accumulation or 1
    if total is None or (user_keys and GLOBAL not in user_keys):
        return Batching(micro * accumulation, micro, accumulation, 1)
    if {MICRO, ACCUMULATION} <= user_keys and micro * accumulation != total:
        raise SettingsError([_contradiction(values)])
    if MICRO in user_keys:
        if total % micro:
            raise SettingsError([_no_multiple(values, MICRO, total, micro)])
        return Batching(total, micro, total // micro, 1)
    if ACCUMULATION in user_keys:
        if total % accumulation:
            raise SettingsError([_no_multiple(values, ACCUMULATION, total, accumulation)])
        return Batching(total, total // accumulation, accumulation, 1)
    micro = largest_divisor(total, micro)
    return Batching(total, micro, total // micro, 1)


def _is_set(value: Setting) -> bool:
    return value.origin.layer in USER_LAYERS and value.value is not None


def _origins(values: Mapping[str, Setting], *keys: str) -> str:
    return "; ".join(errors.where(key, values[key].origin) for key in keys)


def _contradiction(values: Mapping[str, Setting]) -> Diagnostic:
    _, micro, accumulation = (values[key].value for key in BATCH_SETTINGS)
    line = errors.fix_line(GLOBAL, values[GLOBAL].origin, micro * accumulation)
    return errors.about_value(
        values,
        GLOBAL,
        f"is not {MICRO} {micro} × {ACCUMULATION} {accumulation}, which is {micro * accumulation}",
        where=_origins(values, GLOBAL, MICRO, ACCUMULATION),
        allowed="the global batch; or micro-batch and accumulation for one process",
        did_you_mean=str(micro * accumulation),
        fix=f"{line}  or remove one of the three",
    )


def _no_multiple(values: Mapping[str, Setting], key: str, total: int, part: int) -> Diagnostic:
    divisor = largest_divisor(total, part)
    return errors.about(
        values,
        key,
        f"{GLOBAL} {total} is not a multiple of {key} {part}",
        where=_origins(values, GLOBAL, key),
        allowed=f"a {key.partition('.')[2]} that divides {total}",
        did_you_mean=str(divisor),
        fix=f"{errors.fix_line(key, values[key].origin, divisor)}  "
        f"or  --set {GLOBAL}={nearest_multiple(total, part)}",
    )


def _no_share(values: Mapping[str, Setting], total: int, world_size: int) -> Diagnostic:
    multiple = nearest_multiple(total, world_size)
    given = [key for key in BATCH_SETTINGS if _is_set(values[key])]
    keys = given or [MICRO, ACCUMULATION]
    return Diagnostic(
        f"a global batch of {total} cannot be split among {world_size} processes",
        key=keys[0],
        value=total,
        where=_origins(values, *keys),
        allowed=f"a multiple of {world_size}, or a number of processes that divides {total}",
        did_you_mean=f"{multiple}, or {largest_divisor(total, world_size)} processes",
        fix=f"--set {GLOBAL}={multiple}",
    )
