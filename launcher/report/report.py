"""The report of runs as one HTML file, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gearshift.launcher.base import signals
from gearshift.launcher.report import curves, facts, page, run_record, samples
from gearshift.launcher.report.run_record import RunRecord
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import InvalidRecord
from gearshift.training.logging.metrics import append_event
from gearshift.training.storage import Storage, StorageError, atomic_write, storage_errors

_TEMPLATE = Path(__file__).with_suffix(".html")


def render(runs: Sequence[RunRecord], whole: RunRecord | None = None) -> bytes:
    """The page of `runs`, in UTF-8; of a staged run, `whole`, they are the stages.

    Reads the disk. Raises OSError, and InvalidRecord for damaged samples.
    """
    single = whole or (runs[0] if len(runs) == 1 else None)
    return page.render(
        _TEMPLATE,
        curves.drawn(runs),
        title=single.name if single else f"{len(runs)} runs",
        single=single,
        runs=runs,
        facts=facts,
        events=curves,
        fact_rows=page.fact_rows,
        outcomes=[
            (run.name, facts.title(run), facts.status(run)[0], *facts.figures(run).values())
            for run in runs
        ],
        samples={run.folder: samples.read(run, samples.PICTURE_BYTES // len(runs)) for run in runs},
    )


def write(folders: Sequence[Path], out: Path) -> list[RunRecord]:
    """Write the report of the runs in `folders` to `out`; gives their records. Touches the disk.

    A staged run stands for the runs of its stages. Raises InvalidRecord for a damaged file of a
    run, and StorageError.
    """
    every = list(dict.fromkeys(run for folder in folders for run in run_record.runs_of(folder)))
    runs = [run_record.read(*pair) for pair in zip(every, run_record.names_of(every), strict=True)]
    whole = run_record.whole(folders[0], runs) if len(folders) == 1 else None
    with storage_errors(out):
        atomic_write(out, render(runs, whole))
    return runs


def write_at_end(folder: Path) -> None:
    """Write the report of the run in `folder`, which has just ended, into it. Touches the disk.

    A report that cannot be written never fails a run: it is a warning event.
    """
    try:
        with signals.deferred():
            write([folder], folder / run_folder.REPORT)
    # The border of the run: whatever is wrong with a report, its training is done.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, InvalidRecord):
            reason = error.diagnostics[0].message
        # A staged run has no events of its own.
        for run in run_record.runs_of(folder)[-1:]:
            text = f"{run_folder.REPORT} could not be written: {reason}"
            with suppress(StorageError):  # the disk is full, which the run has reported itself
                append_event(Storage(run), "warning", 0, {"text": text, "subject": "report"})
            run_folder.append_log(run, f"warning    {text}")


def refresh(folder: Path) -> None:
    """Write the report of a run again, and that of all stages above it, if they exist.

    Touches the disk.
    """
    above = [folder.absolute().parent] if run_record.is_stage(folder) else []
    for reported_folder in (folder, *above):
        path = reported_folder / run_folder.REPORT
        if path.is_file() and page.is_page(path):
            write_at_end(reported_folder)


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
