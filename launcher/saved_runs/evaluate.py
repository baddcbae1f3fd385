"""The evaluation of a checkpoint on a split of its data, in new processes; its record and text."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path

from gearshift.launcher.base.diagnostics import SettingsError, counted, unknown
from gearshift.launcher.config.commands import DEFAULT_SPLIT, SPLITS
from gearshift.launcher.config.provenance import CliArgs, ResetPart, Resolved
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.launcher.saved_runs import rerun, saved_model
from gearshift.launcher.saved_runs.saved_model import SavedModel, find_saved
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.logging.console_text import render_row
from gearshift.training.logging.encoding import duration, encode_bytes, real
from gearshift.training.storage import Storage, StorageError


def parse_split(split: str | None) -> str:
    """The split of --split. Raises SettingsError."""
    if split is not None and split not in SPLITS:
        raise SettingsError([unknown("--split", split, SPLITS, key="--split")])
    return split or DEFAULT_SPLIT


def prepare(argument: str, name: str | None, args: CliArgs) -> tuple[SavedModel, Resolved]:
    """The checkpoint `name` of the run `argument`, and the settings to evaluate it.

    `name`: see SavedRun.chosen; `args`: engine, processes and data; by default those of the
    checkpoint. Imports torch. Reads the disk. Raises SettingsError, CheckpointError.
    """
    run = find_saved(argument, "evaluate", args.sets)
    model, checkpoint = saved_model.open_checkpoint(run, name)
    resolved = rerun.resolved_as(model, checkpoint.manifest, args)
    if resolved.settings.continual.enabled:
        raise SettingsError.of(
            "a run of continual learning has no test split of its own: each experience has one",
            where=str(run.folder),
            allowed="a run without --continuous-learning",
        )
    return model, resolved


def describe(model: SavedModel, resolved: Resolved) -> str:
    """`step 200 of runs/x, EMA, local on 1 process`."""
    processes = counted(resolved.batching.world_size, "process")
    return model.describe(f"{resolved.settings.engine.name} on {processes}")


def evaluate(model: SavedModel, resolved: Resolved, split: str, data: str | None) -> Json:
    """The facts of the finished evaluation.

    "error": which metrics that decide are not finite, or None. Starts new processes; the run folder
    is only read. `data`: that of --data; None: that of the run. Raises CommandFailed, and
    SettingsError for data that cannot be evaluated.
    """
    reset: tuple[ResetPart, ...] = () if data is None else ("data",)
    plan = RunPlan(resolved, ResumeRequest(model.folder, step=model.step, reset=reset), split=split)
    with rerun.rerun(plan, model.path, "evaluation") as end:
        measured = end.outcome
    assert measured, "ranks that are done have measured"
    return {
        "kind": "eval",
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "step": model.step,
        "split": measured["split"],
        # From JSON, where NaN and infinities are texts.
        "metrics": {name: float(value) for name, value in measured["metrics"].items()},
        "samples": measured["samples"],
        "weights": model.kind,
        "engine": resolved.settings.engine.name,
        "world_size": resolved.batching.world_size,
        "data": data,
        "seconds": measured["seconds"],
        "preview": measured["preview"],
        "error": measured["reason"] or None,
    }


def record(folder: Path, facts: Facts) -> Path | None:
    """Add a line to evaluations.jsonl of the run; its path. None: the folder is read-only.

    Touches the disk; a failure is a warning on stderr.
    """
    line = {key: value for key, value in facts.items() if key not in ("preview", "error")}
    try:
        Storage(folder).append_line(run_folder.EVALUATIONS, encode_bytes(line))
    except StorageError as error:
        print(f"warning: the result was not saved: {error}", file=sys.stderr)
        return None
    return folder / run_folder.EVALUATIONS


def render(title: str, facts: Facts, saved: Path | None) -> str:
    """The result as text."""
    metrics = "  ".join(f"{name} {real(value)}" for name, value in facts["metrics"].items())
    samples = f"{counted(facts['samples'], 'sample')} in {duration(facts['seconds'])}"
    lines = [title, render_row(facts["split"], metrics), render_row("samples", samples)]
    if saved:
        lines.append(render_row("saved", str(saved)))
    if facts["preview"]:
        lines += ["preview", *(f"| {line}" for line in facts["preview"].splitlines())]
    return "\n".join(lines)
