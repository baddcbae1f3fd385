"""Fits the larger batch of a mode to the amount of data: train.least_steps."""

from __future__ import annotations

import math
from dataclasses import replace

from launcher.config.batching import ACCUMULATION, GLOBAL, LEAST, MICRO, largest_divisor
from launcher.config.provenance import BATCH_SETTINGS, MODE_LAYER, Origin, Resolved, Values
from launcher.config.schema import settings_class
from training.settings import nested

_LR, _LENGTH = "optim.lr", "train.max_steps"


def expected(resolved: Resolved) -> str | None:
    """What `fitted` may change once the samples are counted; None: nothing."""
    if not _may_shrink(resolved):
        return None
    smallest, least = _default_batch(resolved.values), resolved.values[LEAST].value
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
    values, least = resolved.values, resolved.values[LEAST].value
    if least is None:
        return resolved
    counted, notes = f"{samples:,} training samples", list(resolved.notes)
    changes: dict[str, float | None] = {}
    old = resolved.batching.global_batch
    if _may_shrink(resolved) and (new := _batch(resolved, samples)) < old:
        lr, steps = values[_LR], values[_LENGTH]
        if not lr.is_of_user:
            follows = lr.value * math.sqrt(new / old)
            changes[_LR] = float(f"{max(follows, min(lr.value, lr.mode_default)):.6g}")
        if steps.value is not None and not steps.is_of_user:
            changes[_LENGTH] = max(1, round(steps.value * old / new))
        others = "".join(f"; {key} {value:g}" for key, value in changes.items())
        seen = _samples(resolved, samples)
        what = counted if seen == samples else f"{seen:,} samples of the run"
        few = f"{what} are {seen // old} steps of {old}, and {LEAST} is {least}"
        notes.append(f"{GLOBAL}: {new} instead of {old}: {few}{others}")
        share = new // resolved.world_size
        micro = largest_divisor(share, resolved.batching.micro_batch)
        changes |= {GLOBAL: new, MICRO: micro, ACCUMULATION: share // micro}
    origin = Origin(MODE_LAYER, f"fitted to {counted}")
    changed = {**changes, LEAST: None}
    changed = {key: value for key, value in changed.items() if value != values[key].value}
    values = {**values, **{k: values[k].overridden(v, origin) for k, v in changed.items()}}
    tree = nested({key: value.value for key, value in values.items()})
    settings = settings_class(values["model.family"].value).model_validate(tree)
    return replace(resolved, settings=settings, values=values, notes=notes)


def _may_shrink(resolved: Resolved) -> bool:
    """Whether the batch is larger than the default's, and not of the user."""
    values, total = resolved.values, resolved.batching.global_batch
    is_set = any(values[key].is_of_user for key in BATCH_SETTINGS)
    return values[LEAST].value is not None and not is_set and total > _default_batch(values)


def _default_batch(values: Values) -> int:
    """The global batch of mode default."""
    total, micro, accumulation = (values[key].mode_default for key in BATCH_SETTINGS)
    return int(total or (micro or 1) * (accumulation or 1))


def _batch(resolved: Resolved, samples: int) -> int:
    """The global batch with train.least_steps, if the default's or more has so many."""
    values = resolved.values
    unit = math.lcm(_default_batch(values), resolved.world_size)
    return max(unit, _samples(resolved, samples) // values[LEAST].value // unit * unit)


def _samples(resolved: Resolved, samples: int) -> int:
    """The samples of an epoch, or of a run that the mode limits to fewer."""
    steps = resolved.values[_LENGTH]
    is_limited = steps.value is not None and not steps.is_of_user
    return min(samples, steps.value * resolved.batching.global_batch) if is_limited else samples
