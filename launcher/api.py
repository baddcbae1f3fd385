"""Training from Python, with a result instead of an exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base import exit_codes
from launcher.base.diagnostics import SettingsError
from launcher.config.errors import about_data
from launcher.config.provenance import CliArgs
from launcher.continual.loop import train_continually
from launcher.report.report import write_at_end
from launcher.resume import saved_model
from launcher.run.execute import execute_run
from launcher.run.failures import Report
from launcher.run.prepare import PreparedRun
from launcher.run_folder import records
from launcher.stages import execute, pipeline, record, summary
from launcher.stages.pipeline import Pipeline, PipelineStage
from models.base import DataError
from training.checkpoint.manifest import CheckpointError

if TYPE_CHECKING:
    from torch.nn import Module

_NOT_RETURNED = ("exit_code", "fault")
"""Fields of an outcome that only a failed run has: it raises RunError."""
Paths = str | PathLike[str] | Sequence[str | PathLike[str]]


class RunError(Exception):
    """The run failed; the message names the rank, its host and its error."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    status: str
    """completed, or stopped by a signal after saving."""
    reason: str
    """Why the run ended."""
    steps: int
    """Optimizer steps taken."""
    epochs: float
    """Passes over the training data, as a fraction."""
    wall_s: float
    """Wall-clock seconds."""
    best: Mapping[str, float | str | int] | None
    """The best evaluation: metric, value and step; None: no evaluation."""
    samples_per_s: float | None
    """Over all ranks; None: no step was taken."""
    peak_memory_bytes: Mapping[str, int | None]
    """Of `device` (None on a CPU) and `host`, of the rank with the highest peak."""
    timing: Mapping[str, float] | None
    """Step times, with `train.timing`; None: not measured."""
    folder: Path | None
    """None on ranks other than 0 of torchrun or srun."""
    experience: Mapping[str, Any] | None = None
    """Continual learning: the newest experience, with metrics on old and new data."""
    test: Mapping[str, Any] | None = None
    """With `eval.test`: the metrics of the test split, and the step of the weights."""
    time_split: Mapping[str, float] | None = None
    """Seconds of the run by part, as in result.json; None: not measured, or with stages."""
    stages: Mapping[str, Path] = field(default_factory=dict)
    """The run folder of each stage of staged training, by name."""

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl: of `kind` "train" or "eval", or all. Reads the disk.

        With stages, the lines of all stages in order. Raises SettingsError if a line is damaged.
        """
        if self.folder is None:
            return []
        folders = self.stages.values() or (self.folder,)
        lines = [line for folder in folders for line in records.metrics_lines(folder)]
        return [line for line in lines if kind in (None, line["kind"])]

    def model(self, checkpoint: str | int | None = None) -> Module:
        """The trained model on the CPU, in evaluation mode, with its EMA if the run has one.

        `checkpoint` is "best", "last" or a step; by default the best one, or else the last. With
        stages, the model of the last stage. Reads the disk, and the data if the task does not work
        without it. Raises SettingsError if this rank has no folder or there is no such checkpoint,
        and RunError if it is damaged.
        """
        if self.folder is None:
            raise SettingsError.of(
                "this process has no run folder, from which the model is loaded",
                where="Run.model()",
                allowed="rank 0 of torchrun or srun",
            )
        name = None if checkpoint is None else str(checkpoint)
        try:
            saved = saved_model.find_model(str(self.folder), name, "model")
            task = saved_model.build_task(saved.settings, saved.folder, "cpu")
            return saved_model.load(saved, task)
        except SettingsError as error:
            where = f"Run.model({checkpoint!r}) of {self.folder}" if checkpoint else "Run.model()"
            faults = [replace(one, where=where, fix=None) for one in error.diagnostics]
            raise SettingsError(faults) from None
        except DataError as error:
            raise about_data(error) from error
        except CheckpointError as error:
            raise RunError(str(error)) from error


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
    """The implementation of `launcher.train`."""
    args = CliArgs(
        model=model,
        mode=mode,
        engine=engine,
        configs=_paths(config),
        sets=[f"{key}={_text(value)}" for key, value in _flat(settings)],
        resume=None if resume is None else str(resume),
        reset=[reset] if isinstance(reset, str) else list(reset),
    )
    ready = pipeline.prepare(args, None if out is None else Path(out), [])
    if isinstance(ready, Pipeline):
        return _stages(ready, console)
    if ready.nothing_left is not None:
        return Run(**ready.nothing_left.outcome, folder=ready.folder if ready.is_rank_0 else None)
    finished = execute_run(
        ready, console, show=lambda report: None, continual=train_continually, report=write_at_end
    )
    return _result(finished.report, finished.folder)


def _stages(ready: Pipeline, console: bool) -> Run:
    if not ready.left:
        return _whole(record.summarize(ready.record), "nothing is left to do", ready)

    def announce(stage: PipelineStage, begun: PreparedRun) -> None:
        if console:
            print(summary.title(ready, stage), flush=True)

    ended = execute.execute(
        ready, console, show=lambda report: None, announce=announce, report=write_at_end
    )
    last = _result(ended.report, ended.folder)
    return _whole(ended.result, last.reason, ready)


def _whole(result: Mapping[str, Any], reason: str, ready: Pipeline) -> Run:
    names = {field.name for field in fields(Run)} - {"reason", "folder", "stages"}
    values: dict[str, Any] = {name: result.get(name) for name in names}
    return Run(**values, reason=reason, folder=ready.folder, stages=ready.record.stages)


def _result(report: Report, folder: Path | None) -> Run:
    if isinstance(report.cause, SettingsError):
        raise report.cause
    if report.kind == "invalid input":
        raise SettingsError.of(report.text.removeprefix("error: ")) from report.cause
    if report.exit_code == exit_codes.INTERRUPTED:
        raise KeyboardInterrupt
    if report.exit_code == exit_codes.FAILURE or report.outcome is None:
        raise RunError("\n".join(filter(None, (report.text, report.trace)))) from report.cause
    outcome: dict[str, Any] = {k: v for k, v in report.outcome.items() if k not in _NOT_RETURNED}
    return Run(**outcome, folder=folder)


def _paths(config: Paths) -> list[Path]:
    return [Path(config)] if isinstance(config, str | PathLike) else [Path(path) for path in config]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key, from dotted or nested keys."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" != "promise":
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _text(value: Any) -> str:
    """A value as the text after `--set KEY=`."""
    return value if isinstance(value, str) else json.dumps(value)
