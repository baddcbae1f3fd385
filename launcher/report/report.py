"""The report of runs as one HTML file, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.page import page
from launcher.report import curves, events, facts, run_record
from launcher.report.run_record import RunRecord
from launcher.run_folder import run_folder
from launcher.run_folder.records import InvalidRecord
from training.logging.events import append_event
from training.storage import Storage, StorageError, atomic_write, storage_errors

_TEMPLATE = Path(__file__).with_suffix(".html")


def render(runs: Sequence[RunRecord]) -> bytes:
    """The page of `runs`, in UTF-8. Reads the disk. Raises OSError."""
    rows = facts.comparison(runs)
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    shown = [_shown(run) for run in runs]
    return page.render(_TEMPLATE, curves.plots(runs), title=title, comparison=rows, runs=shown)


def write(folders: Sequence[Path], out: Path) -> list[RunRecord]:
    """Write the report of the runs in `folders` to `out`; gives their records. Touches the disk.

    Raises InvalidRecord for a damaged file of a run, and StorageError.
    """
    runs = [run_record.read(folder) for folder in folders]
    with storage_errors(out):
        atomic_write(out, render(runs))
    return runs


def write_at_end(folder: Path) -> None:
    """Write the report of the run in `folder`, which has just ended, into it. Touches the disk.

    A report that cannot be written never fails a run: it is a warning event.
    """
    try:
        write([folder], folder / run_folder.REPORT)
    # The border of the run: whatever is wrong with a report, its training is done.
    except Exception as error:
        reason = error.diagnostics[0].message if isinstance(error, InvalidRecord) else error
        _warn(folder, f"{run_folder.REPORT} could not be written: {reason}")


def as_json(runs: Sequence[RunRecord], out: Path) -> dict[str, Any]:
    """The path of the report, and the outcome of each run."""
    names = ("model", "mode", "engine", "best", "wall_s", "samples_per_s", "peak_memory_bytes")
    return {
        "report": str(out),
        "runs": [
            {
                "folder": str(run.folder),
                "status": facts.status(run)[0],
                "steps": run.steps,
                **{name: run.result.get(name) for name in names},
            }
            for run in runs
        ],
    }


def _shown(run: RunRecord) -> dict[str, Any]:
    """Everything that the template shows of a run."""
    every = events.shown(run)
    listed = [(str(e.step), e.time, events.text_of(e)) for e in events.thinned(every)]
    return {
        "name": run.name,
        "title": facts.title(run),
        "status": facts.status(run),
        "outcome": facts.outcome(run),
        "counts": facts.counts(run),
        "tiles": facts.tiles(run),
        "chosen": facts.chosen_settings(run),
        "others": facts.other_settings(run),
        "findings": facts.findings(run),
        "warnings": [(e.step, events.text_of(e)) for e in facts.warnings(run)],
        "events": listed,
        "count": len(every),
        "time": facts.time_split(run),
        "profiled": facts.profiled(run),
        "operators": facts.operators(run),
        "machine": facts.machine(run),
        "data": facts.data(run),
        "samples": facts.samples(run),
        "promises": facts.promises(run),
        "promise_command": facts.promise_command(run),
        "checkpoints": facts.checkpoints(run),
        "versions": facts.versions(run),
        "commands": facts.commands(run),
    }


def _warn(folder: Path, text: str) -> None:
    with suppress(StorageError):  # the disk is full, which the run has reported itself
        append_event(Storage(folder), "warning", 0, {"text": text, "subject": "report"})
    run_folder.append_log(folder, f"warning    {text}")
