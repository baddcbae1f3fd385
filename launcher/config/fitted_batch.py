"""A global batch fitted to little data, so that an epoch keeps its steps."""

from __future__ import annotations

import math

from gearshift.launcher.config.batching import GLOBAL, LEAST, samples_of, split
from gearshift.launcher.config.provenance import BATCH_SETTINGS, MODE_LAYER, Origin, Resolved

_LR = "optim.lr"
_LENGTH = "train.max_steps"


def expected(resolved: Resolved) -> str | None:
    """What `fitted` may change once the samples are counted; None: nothing."""
    if not _may_shrink(resolved):
        return None
    smallest = samples_of(resolved.keys.defaults)
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
    least = values[LEAST].value
    if least is None:
        return resolved
    old = resolved.batching.global_batch
    steps = values[_LENGTH].value
    is_limited = steps is not None and _LENGTH not in keys.user
    used = samples
    if is_limited:
        used = min(samples, steps * old)
    smallest = samples_of(keys.defaults)
    unit = math.lcm(smallest, resolved.world_size)
    most = used // least
    new = max(unit, most // unit * unit)
    notes = list(resolved.notes)
    changes: dict[str, float | None] = {LEAST: None}
    if _may_shrink(resolved) and new < old:
        steps_of_mode = used // old
        few = f"{used:,} samples are {steps_of_mode} steps of {old}, and {LEAST} is {least}"
        notes.append(f"{GLOBAL}: {new} instead of {old}: {few}")
        if _LR not in keys.user:
            lr = values[_LR].value
            scaled = lr * math.sqrt(new / old)
            scaled = max(scaled, min(lr, keys.defaults[_LR]))
            changes[_LR] = float(f"{scaled:.6g}")
        if is_limited:
            same_samples = round(steps * old / new)
            changes[_LENGTH] = max(1, same_samples)
        numbers = split(new, resolved.batching.micro_batch, resolved.world_size)
        changes.update(numbers.settings)
    origin = Origin(MODE_LAYER, f"fitted to {samples:,} training samples")
    return resolved.changed(changes, origin, notes=notes)


def _may_shrink(resolved: Resolved) -> bool:
    """Whether the batch is larger than the default's, and not of the user."""
    if resolved.values[LEAST].value is None:
        return False
    if not resolved.keys.user.isdisjoint(BATCH_SETTINGS):
        return False
    return resolved.batching.global_batch > samples_of(resolved.keys.defaults)
