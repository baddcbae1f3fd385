"""What can be told of the settings only when the data is read and everything is built."""

from __future__ import annotations

import sys
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError, render
from launcher.config import errors as refusals
from launcher.config import unused_settings
from launcher.config.batching import GLOBAL, largest_divisor
from launcher.config.resolved import Resolved
from launcher.config.unused_settings import TrackedSettings
from launcher.config.validate import check_train_plan
from models.base import DataError, Task
from models.common.split import SPLIT_FILE, overlapping_groups
from training.train_plan import TrainPlan

MOST_LEFT_OUT = 0.1
"""Share of an epoch that may go unseen without a word."""
_NAMED = 3


def check_before_training(
    resolved: Resolved, train_plan: TrainPlan, settings: TrackedSettings, speaks: bool
) -> None:
    """Refuse or warn of what only now can be told: lengths that never come, settings nobody read.

    All that reads settings has to be built by now. Raises SettingsError; warnings go to stderr
    where this rank `speaks`.
    """
    diagnostics: list[Diagnostic] = []
    if not train_plan.experience:  # which has a length and a schedule of its own
        diagnostics += check_train_plan(
            resolved, train_plan.total_steps, train_plan.steps_per_epoch
        )
    diagnostics += _left_out(resolved, train_plan)
    diagnostics += unused_settings.unused_diagnostics(
        resolved, unused_settings.settings_read(settings)
    )
    if errors := [fault for fault in diagnostics if fault.severity == "error"]:
        raise SettingsError(errors)
    if diagnostics and speaks:
        print(render(diagnostics), file=sys.stderr)


def check_splits(task: Task, folder: Path) -> None:
    """Refuse data on which training and validation would see the same. Reads the run folder.

    Raises DataError where two splits are one object, or share groups.
    """
    fix = "split by what a sample belongs to: recording, patient, document"
    if task.data("train") is task.data("val"):
        raise DataError(
            "the task gives the same samples to train and to validate on",
            where="data('train') and data('val') of the task",
            allowed="splits that share no sample",
            fix=fix,
        )
    if shared := overlapping_groups(folder):
        more = f" and {len(shared) - _NAMED} more" if len(shared) > _NAMED else ""
        raise DataError(
            f"{len(shared)} groups are in two splits: {', '.join(shared[:_NAMED])}{more}",
            where=str(folder / SPLIT_FILE),
            allowed="each group in one of train, val and test",
            fix=fix,
        )


def _left_out(resolved: Resolved, train_plan: TrainPlan) -> list[Diagnostic]:
    """That much of the data fills no global batch, in each epoch another part."""
    length = train_plan.steps_per_epoch * train_plan.global_batch + train_plan.left_out
    if train_plan.left_out <= MOST_LEFT_OUT * length:
        return []
    whole = -(-length // train_plan.global_batch)
    near = largest_divisor(length, length // whole)
    origin = resolved.values[GLOBAL].origin
    return [
        Diagnostic(
            f"{train_plan.left_out} of {length} samples fill no global batch of {train_plan.global_batch}: "
            f"each epoch leaves out as many, other ones each time",
            key=GLOBAL,
            value=train_plan.global_batch,
            where=refusals.where(GLOBAL, origin),
            fix=f"--set {GLOBAL}={near}",
            severity="warning",
        )
    ]
