"""Reads words and files, decides, starts processes and tells the person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.base import environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from typing import Any

    from launcher.api import Paths, Run

environment.pin_packages()


def train(
    model: str | None = None,
    mode: str | None = None,
    engine: str | None = None,
    *,
    config: Paths = (),
    out: str | PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    console: bool = True,
    resume: str | int | PathLike[str] | None = None,
    reset: str | Sequence[str] = (),
) -> Run:
    """Train as the command line does, and give the result in place of an exit code.

    `config` is one settings file or several; `settings` single values, by dotted key or nested;
    with `console` false nothing is printed. `resume` is what a run goes on from: "auto", a run
    folder, one of its checkpoints, or a step; `reset` what begins anew all the same: "optimizer",
    "schedule", "data". Raises SettingsError where words, settings or data are wrong (nothing was
    written), RunError where the run failed.
    """
    from launcher import api  # imported here, so that `--help` need not

    return api.train(model, mode, engine, config, out, settings or {}, console, resume, reset)
