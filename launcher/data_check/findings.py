"""What a task makes of data: facts, splits and whether they overlap, a sample, pictures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config.custom_task import task_class
from launcher.config.provenance import Resolved
from launcher.config.schema import model_name
from launcher.run import affinity
from models.base import DataError, Picture


@dataclass(frozen=True)
class Findings:
    """What was found."""

    path: str
    model: str
    """The family and size that read it, or the task."""
    format: str | None
    facts: Mapping[str, Any]
    """What the task tells of its data."""
    overlapping_groups: Sequence[str] | None
    """Groups that lie in two splits; none is good. None: the task has no groups to compare."""
    sample: Mapping[str, Any]
    """Axes and type of each tensor in a batch of one sample."""
    pictures: Sequence[Picture]


def look(path: str, form: str | None, resolved: Resolved) -> Findings:
    """Set the task up and ask it; imports torch, and reads the data.

    What a task keeps of its data goes into a folder that is gone afterwards. Raises SettingsError
    where the data cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="gearshift-data-") as kept:
        try:
            return _look(path, form, resolved, Path(kept))
        except DataError as fault:
            raise SettingsError([_told(fault, path)]) from fault


def _told(fault: DataError, path: str) -> Diagnostic:
    return Diagnostic(
        fault.message,
        value=path,
        where=fault.where or None,
        allowed=fault.allowed or None,
        did_you_mean=fault.did_you_mean or None,
        fix=fault.fix or None,
    )


def _look(path: str, form: str | None, resolved: Resolved, folder: Path) -> Findings:
    affinity.share_politely(os.environ)  # before torch is imported
    import torch

    from models.base import Context, HasPictures
    from models.common.split import overlapping_groups
    from training.data.samples import Samples
    from training.inspection import shapes

    settings = resolved.settings
    seed = settings.train.seed
    context = Context(seed, settings.eval.share, folder, torch.device("cpu"))
    task = task_class(settings.model.family)(settings.model, settings.data, context)
    task.setup()
    first = Samples(task, task.data("train"), seed)[0, [0]]
    if isinstance(first, DataError):
        raise first
    return Findings(
        path=path,
        model=model_name(settings.model),
        format=form,
        facts=task.facts(),
        overlapping_groups=overlapping_groups(folder),
        sample={name: told for name, told in shapes(first.batch).items() if "[" in str(told)},
        pictures=task.pictures() if isinstance(task, HasPictures) else (),
    )
