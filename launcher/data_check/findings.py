"""Inspection of data by a task: facts, splits and their overlap, a sample, pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.base import ending, environment
from launcher.config.errors import about_data
from launcher.config.options import OPTIONS, TRAINING
from launcher.config.provenance import Resolved
from launcher.config.schema import model_name, task_class
from launcher.run import affinity
from models.base import DataError, Picture, SamplePart


@dataclass(frozen=True)
class Findings:
    """The result of an inspection."""

    path: str
    model: str
    """The family and size, or the custom task, that read the data."""
    format: str | None
    facts: Mapping[str, Any]
    """Facts that the task reports about its data."""
    overlapping_groups: Sequence[str] | None
    """Groups in two splits: an error. None: the task has no groups to compare."""
    sample: Mapping[str, Any]
    """Axes and type of each tensor in a batch of one sample."""
    text: Sequence[SamplePart]
    """That sample as text; empty: it is not text."""
    pictures: Sequence[Picture]


def inspect(path: str, format: str | None, resolved: Resolved) -> Findings:
    """Set up the task and inspect its data; imports torch, and reads the data.

    Files of the task go into a temporary folder. Raises SettingsError if the data cannot be used.
    """
    with ending.temporary_folder("gearshift-data-") as folder:
        try:
            return _inspect(path, format, resolved, folder)
        except DataError as error:
            raise about_data(error, value=path, fix=_with_sets(error.fix) or None) from error


def _with_sets(fix: str) -> str:
    """A fix for this command, which takes --set, not the options of a run: --seq-len 64."""
    for option in OPTIONS:
        if option.group == TRAINING and option.key:
            fix = re.sub(rf"{option.flag} (\S+)", rf"--set {option.key}=\1", fix)
    return fix


def _inspect(path: str, format: str | None, resolved: Resolved, folder: Path) -> Findings:
    affinity.limit_spinning(environment.variables())  # before torch is imported
    import torch

    from models.base import Context, HasPictures, HasSampleText
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
        format=format,
        facts=task.facts(),
        overlapping_groups=overlapping_groups(folder),
        sample={name: text for name, text in shapes(first.batch).items() if "[" in str(text)},
        text=task.sample_text() if isinstance(task, HasSampleText) else (),
        pictures=task.pictures() if isinstance(task, HasPictures) else (),
    )
