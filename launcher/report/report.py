"""The report of runs as one HTML file, with their curves and events, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from gearshift.launcher.base import signals
from gearshift.launcher.report import facts, page, run_record
from gearshift.launcher.report.page import PlotLine, Unit, plot
from gearshift.launcher.report.run_record import Columns, RunRecord
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import InvalidRecord
from gearshift.training.callbacks.base import Json
from gearshift.training.logging.metrics import OF_PART, append_event
from gearshift.training.storage import Storage, StorageError, atomic_write, storage_errors

_TEMPLATE = Path(__file__).with_suffix(".html")
_STEP = "step_time_s"
_TIME = "_time_s"
_PERCENT = "_percent"
_PART = "parts."
_ABOVE_TIME: Sequence[tuple[str, Unit, str]] = (
    ("Gradient norm", "number", "grad_norm"),
    ("Samples per second", "per second", "samples_per_s"),
    ("Units per second", "per second", "tokens_per_s"),
)
_AT_END: Sequence[tuple[str, Unit, str]] = (
    ("Temperature in °C", "number", "temperature_celsius"),
    ("Loss scale", "number", "loss_scale"),
    ("Model FLOPs utilization", "number", "mfu"),
)
"""Plots of one key: title, unit and key, above the step times and at the end."""
_OUTCOME = ("model", "mode", "engine", "best", "wall_s", "samples_per_s", "peak_memory_bytes")
_ROWS: Mapping[str, Sequence[str]] = {
    "saves": ["saved"],
    "evaluations": ["evaluated", "best_loaded", "control"],
    "resumes": ["resumed", "requeued"],
    "throttling": [
        "limit_exceeded_at_start",
        "limit_warning",
        "throttled",
        "relieved",
        "limit_given_up",
        "disk_filling",
        "pressure",
        "fewer_workers",
        "smaller_micro_batch",
    ],
    "out of memory": ["out_of_memory"],
    "signals": ["signal", "deadline"],
    "warnings": ["warning", "advice", "skipped", "straggler"],
    "start and end": ["started", "stopped"],
    "other": [],
}
"""Kinds of events by row on the step axis; other kinds are in the last row."""
_ROW_OF = {kind: row for row, kinds in _ROWS.items() for kind in kinds}


def render(runs: Sequence[RunRecord], whole: RunRecord | None = None) -> bytes:
    """The page of `runs`, in UTF-8; of a staged run, `whole`, they are the stages.

    Reads the disk. Raises OSError, and InvalidRecord for damaged samples.
    """
    single = whole
    if len(runs) == 1:
        single = whole or runs[0]
    outcomes = []
    for run, mark in zip(runs, facts.validation_marks(runs), strict=True):
        word, _ = facts.status(run)
        figures = facts.figures(run)
        if mark:
            figures["best"] += f" (data {mark})"
        outcomes.append((run.name, facts.title(run), word, *figures.values()))
    # The pictures of all runs share the size of one page.
    room = run_record.PICTURE_BYTES // len(runs)
    return page.render(
        _TEMPLATE,
        _curves(runs),
        title=single.name if single else f"{len(runs)} runs",
        single=single,
        runs=runs,
        facts=facts,
        fact_rows=page.fact_rows,
        outcomes=outcomes,
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
    for reported in (folder, folder.absolute().parent):
        path = reported / run_folder.REPORT
        is_of_run = reported == folder or run_record.is_stage(folder)
        if is_of_run and path.is_file() and page.is_page(path):
            write_at_end(reported)


def as_json(runs: Sequence[RunRecord], out: Path) -> Json:
    """The path of the report, and the outcome of each run.

    `validation`: the data of its best score, as a letter; null where all are the same or unknown.
    """
    outcomes = []
    for run, mark in zip(runs, facts.validation_marks(runs), strict=True):
        word, _ = facts.status(run)
        outcomes.append(
            {
                "folder": str(run.folder),
                "status": word,
                "steps": run.steps,
                "validation": mark or None,
                **{name: run.result.get(name) for name in _OUTCOME},
            }
        )
    return {
        "report": str(out),
        "runs": outcomes,
        "warning": facts.validation_note(runs) or None,
    }


def _curves(runs: Sequence[RunRecord]) -> Json:
    """All curves of `runs`, over steps, as JSON; events are those of all runs."""
    plots = [plot(title, unit, lines) for title, unit, lines in _plots(runs) if lines]
    marks: list[Json] = []
    for run in runs:
        marks += _marks(run, f"{run.name}: " if len(runs) > 1 else "")
    return page.as_json("step", plots, marks)


def _plots(runs: Sequence[RunRecord]) -> Iterator[tuple[str, Unit, list[PlotLine]]]:
    """Title, unit and lines of each plot. Colors tell several runs apart."""
    is_one = len(runs) == 1
    train = [run.train for run in runs]
    evaluations = [run.evaluations for run in runs]

    # Several runs share a plot: of each only its main loss, rate and time.
    losses = {"loss": "loss"}
    rates: dict[str, str] = {}
    times = {_STEP: "step"}
    percents = {}
    for key in dict.fromkeys(chain.from_iterable(train)):
        if key.startswith(_PART) and is_one:
            losses[key] = key.removeprefix(_PART)
        if (key == "lr" or key.startswith(OF_PART)) and (is_one or not rates):
            rates[key] = key
        if key.endswith(_TIME) and is_one and key != _STEP:
            times[key] = _label(key)
        if key.endswith(_PERCENT):
            percents[key] = _label(key)
    names = dict.fromkeys(chain.from_iterable(evaluations))
    loss_metrics = {name: name for name in names if "loss" in name}

    lines = _lines(runs, train, losses)
    lines += _lines(runs, evaluations, loss_metrics, below=len(lines))
    yield "Loss", "number", lines

    # The metric that decides which checkpoint is best comes first.
    best = [run.result["best"]["metric"] for run in runs if run.result.get("best")]
    others = [name for name in names if name not in loss_metrics]
    for name in sorted(others, key=lambda name: name not in best):
        yield name, "number", _lines(runs, evaluations, {name: name})

    yield "Learning rate", "number", _lines(runs, train, rates)
    for title, unit, key in _ABOVE_TIME:
        yield title, unit, _lines(runs, train, {key: title.lower()})
    yield "Seconds of a step", "seconds", _lines(runs, train, times)

    for side in ("device", "host"):
        lines = _lines(runs, train, {f"{side}_memory_bytes": f"{side} memory"})
        if is_one and lines:
            lines += _peaks(runs[0], side)
        yield f"Memory of the {side}", "bytes", lines

    yield "Use of the machine", "percent", _lines(runs, train, percents)
    for title, unit, key in _AT_END:
        yield title, unit, _lines(runs, train, {key: title.lower()})


def _lines(
    runs: Sequence[RunRecord],
    columns: Sequence[Columns],
    names: Mapping[str, str],
    below: int = 0,
) -> list[PlotLine]:
    """A line for each run and each of its named columns, `below` so many lines of the plot."""
    lines = []
    for at, run in enumerate(runs):
        for number, (key, name) in enumerate(names.items(), start=below):
            points = columns[at].get(key)
            # Of one run each line has its color; of several, each run.
            line_name = f"{run.name}, {name}" if below or len(names) > 1 else run.name
            if points and len(runs) == 1:
                lines.append(PlotLine(name, points, color=number))
            elif points:
                lines.append(PlotLine(line_name, points, color=at, dashed=below > 0))
    return lines


def _label(key: str) -> str:
    """A key of metrics.jsonl for people: `data_time_s` is data, `ram_percent` ram."""
    return key.removesuffix(_TIME).removesuffix(_PERCENT).replace("_", " ")


def _peaks(run: RunRecord, side: str) -> Iterator[PlotLine]:
    """The predicted and the measured peak, from the first to the last logged step."""
    first = min(points[0][0] for points in run.train.values())
    last = max(points[-1][0] for points in run.train.values())
    for name, key, color in (
        ("predicted peak", "predicted_memory_bytes", 1),
        ("measured peak", "peak_memory_bytes", 3),
    ):
        peak = (run.result.get(key) or {}).get(side)
        if peak is not None:
            yield PlotLine(name, [(first, peak), (last, peak)], color, dashed=True)


def _marks(run: RunRecord, prefix: str) -> list[Json]:
    """The events on the step axis, by row; `prefix` stands before each text."""
    shown = facts.shown_events(run)
    marks = []
    for color, row in enumerate(_ROWS):
        events = [event for event in shown if _ROW_OF.get(event["kind"], "other") == row]
        # Each row by itself, else a rare kind is lost among the frequent ones.
        for event in page.thinned(events, facts.MOST_EVENTS):
            text = f"{prefix}{facts.event_text(event)}"[:300]
            marks.append({"x": event["step"], "lane": row, "text": text, "color": color})
    return marks
