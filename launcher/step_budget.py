"""The steps of a run, solved from its settings once the number of samples is known."""

from __future__ import annotations

import sys
from typing import Any

from launcher import taken
from launcher.checks import check_budget
from launcher.messages import SettingsError, render
from launcher.resolved import Resolved
from launcher.taken import Taken
from training import duration
from training.data.order import DataOrder
from training.hooks import Budget


def solve(
    settings: Any, resolved: Resolved, order: DataOrder, units: str, flops: float | None
) -> Budget:
    """The solved numbers of a run; `units` and `flops` a sample are the task's."""
    per_epoch = order.steps_per_epoch
    wanted = max(1, round(settings.train.epochs * per_epoch))
    limit = settings.train.max_steps
    total = wanted if limit is None else min(limit, wanted)

    def steps(cadence: int | str | None) -> int | None:
        return None if cadence is None else duration.steps(cadence, per_epoch, total)

    batching = resolved.batching
    return Budget(
        total_steps=total,
        steps_per_epoch=per_epoch,
        global_batch=batching.global_batch,
        micro_batch=batching.micro_batch,
        accumulation=batching.accumulation,
        world_size=batching.world_size,
        units=units,
        eval_every=steps(settings.eval.every),
        save_every=steps(settings.save.every),
        flops_per_sample=flops,
    )


def check(resolved: Resolved, budget: Budget, settings: Taken, speaks: bool) -> None:
    """Refuse or warn of what only now can be told: lengths that never come, settings nobody read.

    All that reads settings has to be built by now. Raises SettingsError; warnings go to stderr
    where this rank `speaks`.
    """
    faults = check_budget(resolved, budget.total_steps, budget.steps_per_epoch)
    faults += taken.unread_faults(resolved, taken.seen(settings))
    if errors := [fault for fault in faults if fault.severity == "error"]:
        raise SettingsError(errors)
    if faults and speaks:
        print(render(faults), file=sys.stderr)
