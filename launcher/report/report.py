"""The report of runs as one HTML file, with their curves and events, and as JSON for programs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from gearshift.launcher.base import signals
from gearshift.launcher.base.diagnostics import Diagnostic, program_line, say
from gearshift.launcher.base.diagnostics import render as render_diagnostics
from gearshift.launcher.config.settings_file import read_values
from gearshift.launcher.report import facts, page, run_record
from gearshift.launcher.report.page import PlotLine, Unit, plot
from gearshift.launcher.report.run_record import Columns, RunRecord
from gearshift.launcher.run_folder import run_folder
from gearshift.training.logging.encoding import describe, duration
from gearshift.training.logging.metrics import append_event
from gearshift.training.storage import Storage, StorageError, atomic_write, storage_errors

_TEMPLATE = Path(__file__).with_suffix(".html")
_LOSS = "Loss"
_PLOTS: Sequence[tuple[str, Unit, str]] = (
    (_LOSS, "number", r"loss$|parts\."),
    ("Learning rate", "number", r"lr$|lr\."),
    ("Gradient norm", "number", "grad_norm"),
    ("Samples per second", "per second", "samples_per_s"),
    ("Units per second", "per second", "tokens_per_s"),
    ("Seconds of a step", "seconds", r".*_time_s"),
    ("Memory", "bytes", r".*_memory_bytes"),
    ("Use of the machine", "percent", r".*_percent"),
    ("Loss scale", "number", "loss_scale"),
    ("Model FLOPs utilization", "number", "mfu"),
)
"""Title, unit, and how the keys begin; several runs share a plot with the first key of each."""
_AFFIXES = re.compile(r"^parts\.|_time_s$|_memory_bytes$|_percent$")


def render(runs: Sequence[RunRecord], whole: RunRecord | None = None) -> bytes:
    """The page of `runs`, in UTF-8; of a staged run, `whole`, they are the stages.

    Reads the disk. Raises OSError, and InvalidRecord for damaged samples.
    """
    single = whole
    if len(runs) == 1:
        single = whole or runs[0]
    outcomes = []
    marks = facts.validation_marks(runs)
    for run, mark in zip(runs, marks, strict=True):
        word, _ = facts.status(run)
        figures = facts.figures(run)
        if mark:
            figures["best"] += f" (data {mark})"
        outcomes.append((run.name, facts.title(run), word, *figures.values()))
    # The pictures of all runs share the size of one page.
    room = run_record.PICTURE_BYTES // len(runs)
    return page.render(
        _TEMPLATE,
        [plot(title, unit, lines) for title, unit, lines in _plots(runs) if lines],
        title=single.name if single else f"{len(runs)} runs",
        single=single,
        runs=runs,
        facts=facts,
        fact_rows=page.fact_rows,
        duration=duration,
        outcomes=outcomes,
        marks=marks,
        samples={run.folder: run_record.samples(run, room) for run in runs},
    )


def write(folders: Sequence[Path], out: Path) -> list[RunRecord]:
    """Write the report of the runs in `folders` to `out`; gives their records. Touches the disk.

    A staged run stands for the runs of its stages. Raises InvalidRecord for a damaged file of a
    run, and StorageError.
    """
    # A run that is named by itself and by its staged run counts once.
    paths = list(dict.fromkeys(chain.from_iterable(map(run_record.runs_of, folders))))
    runs = list(map(run_record.read, paths, run_record.names_of(paths)))
    whole = None
    if len(folders) == 1:
        whole = run_record.whole(folders[0], runs)
    with storage_errors(out):
        atomic_write(out, render(runs, whole))
    return runs


def write_missing(folders: Iterable[Path]) -> None:
    """Write the report of each completed run that wants one and has none. Touches the disk."""
    for folder in folders:
        if not (folder / run_folder.REPORT).exists():
            for run in run_record.runs_of(folder)[-1:]:
                if read_values(run / run_folder.SETTINGS).get("report.enabled", True):
                    write_at_end(folder)


def write_at_end(folder: Path) -> None:
    """Write the report of the run in `folder`, which has just ended, into it. Touches the disk.

    A report that cannot be written never fails a run: it is a warning, printed and as an event.
    """
    try:
        with signals.deferred():
            write([folder], folder / run_folder.REPORT)
    # The border of the run: whatever is wrong with a report, its training is done.
    except Exception as error:
        text = f"{run_folder.REPORT} could not be written: {describe(error)}"
        warning = Diagnostic(text, fix=program_line("report", folder), severity="warning")
        say(render_diagnostics([warning]), sys.stderr)
        # A staged run has no events of its own.
        for run in run_record.runs_of(folder)[-1:]:
            with suppress(StorageError):  # the disk is full, which the run has reported itself
                append_event(Storage(run), "warning", 0, {"text": text, "subject": "report"})
            run_folder.append_log(run, f"warning    {text}")


def _plots(runs: Sequence[RunRecord]) -> Iterator[tuple[str, Unit, list[PlotLine]]]:
    """Title, unit and lines of each plot. Colors tell several runs apart."""
    names = dict.fromkeys(chain.from_iterable(run.evaluations for run in runs))
    loss_metrics = [name for name in names if "loss" in name]
    others = [name for name in names if name not in loss_metrics]
    train = [run.train for run in runs]
    evaluations = [run.evaluations for run in runs]
    keys = dict.fromkeys(chain.from_iterable(train))
    for title, unit, pattern in _PLOTS:
        shown = [key for key in keys if re.match(pattern, key)]
        if len(runs) > 1:
            shown = shown[:1]
        lines = _lines(runs, train, shown)
        if title == _LOSS:
            lines += _lines(runs, evaluations, loss_metrics, below=len(lines))
        yield title, unit, lines
        if title == _LOSS:
            for name in others:
                yield name, "number", _lines(runs, evaluations, [name])


def _lines(
    runs: Sequence[RunRecord],
    columns: Sequence[Columns],
    keys: Sequence[str],
    below: int = 0,
) -> list[PlotLine]:
    """A line for each run and each of its columns, `below` so many lines of the plot."""
    lines = []
    for at, run in enumerate(runs):
        for number, key in enumerate(keys, start=below):
            points = columns[at].get(key)
            name = _AFFIXES.sub("", key).replace("_", " ")
            # Of one run each line has its color; of several, each run.
            if points and len(runs) == 1:
                lines.append(PlotLine(name, points, color=number))
            elif points:
                line_name = f"{run.name}, {name}" if below else run.name
                lines.append(PlotLine(line_name, points, color=at, dashed=below > 0))
    return lines
