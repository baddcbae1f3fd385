"""Training from Python: the same words as on the command line, and a result in place of an exit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

from launcher.base import exit_codes
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config.provenance import CliArgs
from launcher.continual.loop import train_continually
from launcher.run.execute import execute_run
from launcher.run.failures import Report
from launcher.run.prepare import PreparedRun
from launcher.run_folder import run_folder
from launcher.stages import execute, pipeline, record, summary
from launcher.stages.pipeline import Pipeline, PipelineStage

Paths = str | PathLike[str] | Sequence[str | PathLike[str]]


class RunError(Exception):
    """The run failed; the text names the rank, its host and its error."""


@dataclass(frozen=True)
class Run:
    """A run that has ended."""

    status: str
    """completed, or stopped by a signal after saving."""
    reason: str
    steps: int
    epochs: float
    wall_s: float
    best: Mapping[str, float | str | int] | None
    """The best evaluation: metric, value and step; None: there was no evaluation."""
    samples_per_s: float | None
    peak_memory_bytes: Mapping[str, int | None]
    timing: Mapping[str, float] | None
    """How long single steps took, with `train.timing`; None: they were not timed."""
    folder: Path | None
    """None on ranks other than 0 of torchrun or srun."""
    experience: Mapping[str, Any] | None = None
    """Of a run that learns on, the newest experience: metrics of old and new data, before and after."""
    stages: Mapping[str, Path] = field(default_factory=dict)
    """The run folder of each stage by its name, where it was stages one after the other."""

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl: of `kind` "train" or "eval", or all. Reads the disk.

        Of stages one after the other: those of the first, then those of the next.
        """
        if self.folder is None:
            return []
        files = [one / run_folder.METRICS for one in self.stages.values() or (self.folder,)]
        lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
        found = [json.loads(line) for line in lines]
        return [line for line in found if kind in (None, line["kind"])]


def train(
    model: str | None,
    mode: str | None,
    engine: str | None,
    config: Paths,
    out: str | PathLike[str] | None,
    settings: Mapping[str, Any],
    console: bool,
    resume: str | int | PathLike[str] | None,
    reset: str | Sequence[str],
) -> Run:
    """As `launcher.train`, which is what people call."""
    words = CliArgs(
        model=model,
        mode=mode,
        engine=engine,
        configs=_paths(config),
        sets=[f"{key}={_text(value)}" for key, value in _flat(settings)],
        resume=None if resume is None else str(resume),
        reset=[reset] if isinstance(reset, str) else list(reset),
    )
    ready = pipeline.prepare(words, None if out is None else Path(out), [])
    if isinstance(ready, Pipeline):
        return _stages(ready, console)
    if ready.nothing_left is not None:
        return Run(**ready.nothing_left.outcome, folder=ready.folder if ready.is_rank_0 else None)
    finished = execute_run(ready, console, tell=lambda report: None, continual=train_continually)
    return _result(finished.report, finished.folder)


def _stages(ready: Pipeline, console: bool) -> Run:
    """What is left of stages one after the other."""
    if not ready.left:
        return _whole(record.summarize(ready.record), "nothing is left to do", ready)

    def announce(link: PipelineStage, begun: PreparedRun) -> None:
        if console:
            print(summary.title(ready, link), flush=True)

    ended = execute.execute(ready, console, tell=lambda report: None, announce=announce)
    last = _result(ended.report, ended.folder)
    return _whole(ended.result, last.reason, ready)


def _whole(told: Mapping[str, Any], reason: str, ready: Pipeline) -> Run:
    names = {one.name for one in fields(Run)} - {"reason", "folder", "stages"}
    kept: dict[str, Any] = {name: told.get(name) for name in names}
    return Run(**kept, reason=reason, folder=ready.folder, stages=ready.record.stages)


def _result(ending: Report, folder: Path | None) -> Run:
    if isinstance(ending.cause, SettingsError):
        raise ending.cause
    if ending.kind == "invalid input":
        raise SettingsError([Diagnostic(ending.text.removeprefix("error: "))]) from ending.cause
    if ending.kind == "stopped" and ending.exit_code == exit_codes.INTERRUPTED:
        raise KeyboardInterrupt
    if ending.exit_code == exit_codes.FAILURE or ending.outcome is None:
        raise RunError("\n".join(filter(None, (ending.text, ending.trace)))) from ending.cause
    told: dict[str, Any] = {k: value for k, value in ending.outcome.items() if k != "exit_code"}
    return Run(**told, folder=folder)


def _paths(config: Paths) -> list[Path]:
    return [Path(config)] if isinstance(config, str | PathLike) else [Path(one) for one in config]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings by dotted key, whether they were given so or nested."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" != "promise":
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _text(value: Any) -> str:
    """A value as it is typed after `--set KEY=`."""
    return value if isinstance(value, str) else json.dumps(value)
