"""Training from Python, and what the file of a custom task needs; names are imported at use."""

from __future__ import annotations

TYPE_CHECKING = False  # that of typing: an import takes time, in which nothing handles Ctrl-C
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from typing import Any

    from gearshift.launcher.api import Paths, Run, RunError
    from gearshift.launcher.base.diagnostics import SettingsError
    from gearshift.models.base import (
        Context,
        DataError,
        GeneratesText,
        Goal,
        Message,
        Metric,
        Picture,
        Prediction,
        Predictions,
        Prompt,
        Sampling,
        Task,
    )
    from gearshift.models.catalog import Stage
    from gearshift.models.common.initial_weights import InitialWeights
    from gearshift.models.common.predictions import few_samples
    from gearshift.models.custom import CustomTask

__all__ = [
    "Context",
    "CustomTask",
    "DataError",
    "GeneratesText",
    "Goal",
    "InitialWeights",
    "Message",
    "Metric",
    "Picture",
    "Prediction",
    "Predictions",
    "Prompt",
    "Run",
    "RunError",
    "Sampling",
    "SettingsError",
    "Stage",
    "Task",
    "few_samples",
    "open_run",
    "train",
]

_MODULES = {
    "Run": "launcher.api",
    "RunError": "launcher.api",
    "SettingsError": "launcher.base.diagnostics",
    "CustomTask": "models.custom",
    "InitialWeights": "models.common.initial_weights",
    "Stage": "models.catalog",
    "few_samples": "models.common.predictions",
}
"""Where a name is defined; else it is in models.base."""


def train(
    model: str | type | PathLike[str] | None = None,
    mode: str | None = None,
    engine: str | None = None,
    *,
    nproc: int | None = None,
    config: Paths = (),
    out: str | PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    console: bool = True,
    resume: str | int | PathLike[str] | None = None,
    reset: str | Sequence[str] = (),
) -> Run:
    """Train as the command line does, and return the result instead of an exit code.

    `model`, `mode`, `engine`, `nproc`, the processes on this machine, and `out`, the run folder,
    are the options of these names; `model` may be the class of a custom task. `config` is one or
    several settings files; `settings` holds single values by dotted key or nested. With `console`
    false nothing is printed. `resume` is "auto", a run folder, a checkpoint or a step; `reset` is
    the state to reinitialize: "optimizer", "schedule", "data". Raises SettingsError for invalid
    arguments, settings or data (nothing was written), RunError if the run failed, and
    KeyboardInterrupt after Ctrl-C, when the run has been saved.
    """
    arguments = dict(locals())
    from gearshift.launcher import api

    return api.train(arguments)


def open_run(folder: str | PathLike[str]) -> Run:
    """The run in `folder`, as `train` returns it, also while it runs and after it failed.

    Its `status` is "running", "starting", "killed" or "not started" if it has no result; `steps` is
    then the last logged step, and `metrics` has the numbers. A staged run gives all stages.
    Reads the disk. Raises SettingsError if `folder` is no run folder.
    """
    from gearshift.launcher import api

    return api.open_run(folder)


def __getattr__(name: str) -> Any:
    """One of `__all__`, imported now: torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'gearshift' has no attribute '{name}'")
    from importlib import import_module

    module = import_module(f"gearshift.{_MODULES.get(name, 'models.base')}")
    return getattr(module, name)
