"""The runs of a folder as rows: what each one is, how it ended, and its best evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import inf, isnan
from pathlib import Path

from gearshift.launcher.base.diagnostics import SettingsError, unknown
from gearshift.launcher.config.render import ORIGINS
from gearshift.launcher.report.page import known
from gearshift.launcher.report.run_record import choice_of
from gearshift.launcher.run_folder import lock, run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.training.callbacks.base import Json
from gearshift.training.checkpoint import manifest
from gearshift.training.checkpoint.manifest import CheckpointError
from gearshift.training.logging.encoding import duration, real, size

DAMAGED = "damaged"


@dataclass(frozen=True)
class ListedRun:
    """A run; None: unknown."""

    name: str
    """Its path below the folder that is listed."""
    status: str
    """As `watch` says; or DAMAGED."""
    reason: str | None = None
    model: str | None = None
    mode: str | None = None
    engine: str | None = None
    steps: int | None = None
    best: Json | None = None
    """With metric, value and direction."""
    wall_s: float | None = None
    peak_memory_bytes: int | None = None
    """Of the device, on a CPU of the host."""
    started: str = ""
    """UTC, ISO 8601."""


def runs_in(folder: Path) -> list[ListedRun]:
    """The runs in `folder`, the first started first; of a staged run its stages.

    A run folder is listed alone. A damaged run is a row. Reads the disk, and writes nothing. Raises
    SettingsError if the folder does not exist.
    """
    if not folder.is_dir():
        raise SettingsError.of(
            f"folder '{folder}' does not exist",
            value=str(folder),
            where=f"command line: list runs {folder}",
            allowed="a folder of runs",
        )
    if (folder / run_folder.PARENT).is_dir():  # that of a comparison
        folder /= run_folder.PARENT
    rows = list(_rows(folder, folder.name)) or [
        row for child in sorted(folder.iterdir()) for row in _rows(child, child.name)
    ]
    return sorted(rows, key=lambda row: row.started)


def by_metric(runs: Sequence[ListedRun], metric: str) -> list[ListedRun]:
    """The best run first; those without the metric last. Raises SettingsError if none has it."""
    metrics = {run.best["metric"]: run.best.get("direction") for run in runs if run.best}
    if metric not in metrics:
        message = f"no run has a best value of '{metric}'"
        raise SettingsError([unknown("--by", metric, metrics, message)])
    sign = -1 if metrics[metric] == "max" else 1

    def rank(run: ListedRun) -> float:
        value = inf
        if run.best and run.best["metric"] == metric:
            value = sign * float(run.best["value"])
        return inf if isnan(value) else value

    return sorted(runs, key=rank)


def table(runs: Sequence[ListedRun]) -> list[Sequence[str]]:
    """The cells of each run, below a head."""
    lines: list[Sequence[str]] = [
        ("run", "model", "mode", "engine", "status", "steps", "best", "time", "memory")
    ]
    for run in runs:
        status = run.status
        if status == DAMAGED:
            status += f": {run.reason}"
        lines.append(
            (
                run.name,
                known(run.model),
                known(run.mode),
                known(run.engine),
                status,
                known(run.steps, "{:,}".format),
                known(run.best, lambda best: f"{best['metric']} {real(float(best['value']))}"),
                known(run.wall_s, duration),
                known(run.peak_memory_bytes, size),
            )
        )
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _rows(folder: Path, name: str) -> Iterator[ListedRun]:
    """The rows of a run, or of the stages of a staged run; none: it is neither."""
    try:
        stages = RunReader(folder).stages()
        for stage, path in stages.items():
            if path.is_dir():
                yield from _rows(path, f"{name}/{stage}")
        if stages:
            return
        if run_folder.is_run_folder(folder):
            yield _row(folder, name)
    except SettingsError as error:
        yield ListedRun(name, DAMAGED, error.diagnostics[0].message)
    except OSError as error:
        yield ListedRun(name, DAMAGED, str(error))


def _row(folder: Path, name: str) -> ListedRun:
    """Raises SettingsError for a damaged file or a link, and OSError."""
    run_folder.check_regular(folder)
    reader = RunReader(folder)
    events = list(reader.events())
    result = reader.result()
    has_ended = bool(events) and events[-1]["kind"] == "stopped" and not lock.is_held(folder)
    if result is None or not has_ended:
        result = _unfinished(folder)
    choice = choice_of(result, reader.object(ORIGINS) or {})
    peaks = result.get("peak_memory_bytes") or {}
    return ListedRun(
        name,
        result["status"],
        reason=result.get("reason"),
        model=choice["model"],
        mode=choice["mode"],
        engine=choice["engine"],
        steps=result.get("steps"),
        best=result.get("best"),
        wall_s=result.get("wall_s"),
        peak_memory_bytes=peaks.get("device") or peaks.get("host"),
        started=events[0]["time"] if events else "",
    )


def _unfinished(folder: Path) -> Json:
    """What a result would tell of a run that trains, or whose process was killed."""
    from gearshift.launcher.report.watched_run import WatchedRun

    snapshot = WatchedRun(folder).snapshot()
    result: Json = {"status": snapshot.state, "reason": snapshot.why or None}
    if snapshot.progress:
        result["steps"] = snapshot.progress.step
        result["wall_s"] = snapshot.progress.elapsed_s
    with suppress(CheckpointError, OSError):
        score = manifest.read((folder / run_folder.LINKS[0]).resolve()).score
        result["best"] = score and asdict(score)
    return result
