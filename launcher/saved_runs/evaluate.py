"""The evaluation of a checkpoint on a split of its data, in new processes; its record and text."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base import environment, exit_codes
from launcher.base.diagnostics import SettingsError, counted, nearest_match, parse
from launcher.config.options import DEFAULT_SPLIT, SPLIT, SPLITS
from launcher.config.provenance import CliArgs, ResetPart, Resolved
from launcher.run import affinity
from launcher.run.job_spec import Job
from launcher.run_folder import run_folder
from launcher.run_folder.checkpoint_search import ResumeRequest
from launcher.saved_runs import saved_model, saved_run
from launcher.saved_runs.rerun import Rerun, rerun, resolved_as
from launcher.saved_runs.saved_run import SavedRun
from training.logging.console_text import render_row
from training.logging.quantities import duration, real
from training.logging.strict_json import encode_bytes
from training.storage import Storage, StorageError

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint

_DATA = "the data that the run was trained on; if it moved, --data PATH"


class EvaluationFailed(Exception):
    """Nothing was measured; `code` is the exit code."""

    def __init__(self, reason: str, code: int = exit_codes.FAILURE) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint of a run, and what it is evaluated on."""

    run: SavedRun
    checkpoint: Checkpoint
    split: str
    resolved: Resolved
    other_data: str | None
    """The data of --data; None: that of the run."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        assert self.run.folder is not None
        return self.run.folder

    @property
    def step(self) -> int:
        """Of the checkpoint."""
        return self.checkpoint.manifest.step

    def describe(self) -> str:
        """`step 200 of runs/x, EMA, local on 1 process`."""
        average = ["EMA"] if saved_model.kind_of(self.checkpoint) == saved_model.AVERAGE else []
        processes = counted(self.resolved.batching.world_size, "process")
        engine = f"{self.resolved.settings.engine.name} on {processes}"
        return ", ".join([f"step {self.step} of {self.folder}", *average, engine])


def parse_split(typed: str | None) -> str:
    """The split of --split. Raises SettingsError."""
    if typed is None or typed in SPLITS:
        return typed or DEFAULT_SPLIT
    raise SettingsError.of(
        f"unknown split '{typed}'",
        key=SPLIT.flag,
        value=typed,
        where=f"command line: {SPLIT.flag} {typed}",
        allowed=", ".join(SPLITS),
        did_you_mean=nearest_match(typed, SPLITS),
    )


def prepare_saved(argument: str, name: str | None, split: str, args: CliArgs) -> Evaluation:
    """The evaluation of the checkpoint `name`, see saved_run.chosen, of the run `argument`.

    Imports torch. Reads the disk. Raises SettingsError, CheckpointError.
    """
    run = saved_run.find_saved(argument, "evaluate", args.sets)
    if run.folder is None:
        raise SettingsError.of(
            f"'{argument}' is a checkpoint outside of its run folder",
            value=argument,
            where=f"command line: evaluate {argument}",
            allowed="a run folder, or a checkpoint in one",
        )
    path = saved_run.chosen(run, name)
    affinity.limit_spinning(environment.variables())  # before torch is imported
    from training.checkpoint.reader import open_checkpoint

    return prepare(run, open_checkpoint(path), split, args)


def prepare(run: SavedRun, checkpoint: Checkpoint, split: str, args: CliArgs) -> Evaluation:
    """The evaluation of `checkpoint` with the engine, processes and data of `args`.

    By default those of the checkpoint. Reads the disk. Raises SettingsError.
    """
    run.check_pretrained(checkpoint)
    settings = run.settings(checkpoint)
    assert settings is not None, "a run folder has settings"
    if settings.get("continual", {}).get("enabled"):
        raise SettingsError.of(
            "a run of continual learning has no test split of its own: each experience has one",
            where=str(run.folder),
            allowed="a run without --continuous-learning",
        )
    resolved = resolved_as(settings, checkpoint.manifest, args)
    data = args.options.get("data.path")
    return Evaluation(run, checkpoint, split, resolved, None if data is None else str(data[1]))


def evaluate(evaluation: Evaluation) -> dict[str, Any]:
    """The facts of the finished evaluation. Starts new processes; the run folder is only read.

    Raises EvaluationFailed, and SettingsError for data that cannot be evaluated.
    """
    step, run = evaluation.step, evaluation.folder
    reset: tuple[ResetPart, ...] = () if evaluation.other_data is None else ("data",)

    def job(source: Path, folder: Path) -> Job:
        resume = ResumeRequest(source, step=step, reset=reset)
        split = evaluation.split
        return Job(evaluation.resolved, folder, console=False, resume=resume, split=split)

    with rerun(evaluation.resolved, run, evaluation.checkpoint.folder, step, job) as finished:
        found = _outcome(finished)
    return {
        "kind": "eval",
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "step": step,
        "split": found["split"],
        "metrics": found["metrics"],
        "samples": found["samples"],
        "weights": saved_model.kind_of(evaluation.checkpoint),
        "engine": evaluation.resolved.settings.engine.name,
        "world_size": evaluation.resolved.batching.world_size,
        "data": evaluation.other_data,
        "seconds": found["seconds"],
        "preview": found["preview"],
    }


def record(folder: Path, facts: Mapping[str, Any]) -> Path | None:
    """Add a line to evaluations.jsonl of the run; its path. None: the folder is read-only.

    Touches the disk; a failure is a warning on stderr.
    """
    line = {key: value for key, value in facts.items() if key != "preview"}
    try:
        Storage(folder).append_line(run_folder.EVALUATIONS, encode_bytes(line))
    except StorageError as error:
        print(f"warning: the result was not saved: {error}", file=sys.stderr)
        return None
    return folder / run_folder.EVALUATIONS


def render(evaluation: Evaluation, facts: Mapping[str, Any], saved: Path | None) -> str:
    """The result as text."""
    metrics = "  ".join(f"{name} {real(value)}" for name, value in facts["metrics"].items())
    samples = counted(facts["samples"], "sample")
    lines = [evaluation.describe(), render_row(facts["split"], metrics)]
    lines.append(render_row("samples", f"{samples} in {duration(facts['seconds'])}"))
    if saved is not None:
        lines.append(render_row("saved", str(saved)))
    if facts["preview"] is not None:
        lines += ["preview", *(f"| {line}" for line in facts["preview"].splitlines())]
    return "\n".join(lines)


def _outcome(finished: Rerun) -> Mapping[str, Any]:
    """What the ranks measured. Raises EvaluationFailed and SettingsError."""
    report = finished.report
    # A signal can interrupt a rank during an import, which then fails with an error of its own.
    if finished.signals or report.exit_code in (exit_codes.INTERRUPTED, exit_codes.RUN_AGAIN):
        is_interrupt = (
            signal.SIGINT in finished.signals or report.exit_code == exit_codes.INTERRUPTED
        )
        code = exit_codes.INTERRUPTED if is_interrupt else exit_codes.RUN_AGAIN
        raise EvaluationFailed(
            "the evaluation was stopped before it finished; nothing was written", code
        )
    if report.exit_code == exit_codes.INVALID_INPUT:
        # Its fix is one for a run that trains.
        first = replace(parse(report.text)[0], fix=None)
        raise SettingsError(
            [replace(first, allowed=_DATA) if "has changed" in first.message else first]
        )
    if report.exit_code != exit_codes.DONE or report.outcome is None:
        text = "\n".join(filter(None, (report.text, report.trace)))
        raise EvaluationFailed(f"the evaluation failed: {text.removeprefix('error: ')}")
    return report.outcome
