"""What a run folder tells of its run, and its samples as cards, read for a report."""

from __future__ import annotations

import os
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf, isfinite
from operator import itemgetter
from pathlib import Path
from typing import Any

from gearshift.launcher.config.render import ORIGINS
from gearshift.launcher.report.page import UNKNOWN, Point
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import RunReader, validation_groups
from gearshift.launcher.run_folder.run_folder import AFTER, BEFORE, SAMPLES
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.storage import read_regular

Columns = Mapping[str, list[Point]]
VALIDATION = "val"
"""The split that decides which checkpoint is best."""
MOST_POINTS = 1000
"""Of a line: about one for each pixel."""
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
_COUNTERS = ("kind", "step", "epoch", "samples", "tokens", "labelled_tokens")
"""Keys of a line that no chart shows."""
PICTURE_BYTES = 600_000
"""Of all pictures of a report together, in base64: with the plots it stays below 700 KB."""
OF_ANOTHER_VERSION = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    StopIteration,
)
"""Raised for a line or a file of another version."""


@dataclass(frozen=True)
class RunRecord:
    """The record of one run."""

    folder: Path
    name: str
    """That of the folder; of a stage, below that of its run."""
    settings: Mapping[str, Facts]
    """origins.json without promises: each key with `value`, `origin`, `layer`, `replaced`."""
    result: Facts
    """result.json; empty: the run has not ended."""
    train: Columns
    """The logged values by key; those of `parts` as `parts.NAME`."""
    evaluations: Columns
    """The values of each metric."""
    events: list[Facts]
    """The lines of events.jsonl and of events-rankN.jsonl, whose facts then have the `rank`."""
    groups: str | None = None
    """A digest of the groups of its validation split; None: unknown."""

    @property
    def validation(self) -> tuple[Any, ...] | None:
        """What its best score was measured on: source, groups, samples; None: nothing, or unknown.

        Scores of other validation data cannot be compared.
        """
        best = self.result.get("best")
        source = (self.result.get("data") or {}).get("source")
        if best is None or (source is None and self.groups is None):
            return None
        return source, self.groups, best.get("samples")

    @property
    def steps(self) -> int:
        """The steps trained, as far as is known."""
        logged = (points[-1][0] for points in self.train.values())
        return int(self.result.get("steps") or max(logged, default=0))

    @property
    def choice(self) -> dict[str, str | None]:
        """Its model, mode and engine."""
        return choice_of(self.result, self.settings)

    @property
    def environment(self) -> Facts:
        """The machine and the libraries that trained; empty: the run has not ended."""
        return self.result.get("environment") or {}


def names_of(folders: Sequence[Path]) -> list[str]:
    """A name for each run: its path from the folder around them all, or a single one's name."""
    paths = [folder.absolute() for folder in folders]
    above = Path(os.path.commonpath(paths)).parent
    return [path.relative_to(above).as_posix() for path in paths]


def runs_of(folder: Path) -> list[Path]:
    """The run folder itself, or those of the stages of a staged run. Reads the disk.

    Empty: there is no run.
    """
    stages = RunReader(folder).stages()
    return [path for path in stages.values() or [folder] if run_folder.is_run_folder(path)]


def whole(folder: Path, stages: Sequence[RunRecord]) -> RunRecord | None:
    """A staged run as one, with the result of all its stages; None: it is another run.

    Reads the disk. Raises InvalidRecord.
    """
    if not RunReader(folder).stages():
        return None
    record = read(folder, folder.absolute().name)
    # Until it ends, its steps are those of its stages.
    result = record.result or {"steps": sum(run.steps for run in stages)}
    return replace(record, result=result)


def read(folder: Path, name: str) -> RunRecord:
    """The record of the run in `folder`, without secrets, under a `name`. Reads the disk.

    Files that do not exist are empty. Raises InvalidRecord for damaged ones, and SettingsError for
    a link.
    """
    run_folder.check_regular(folder)
    reader = RunReader(folder, redacts=True)
    train = defaultdict[str, list[Point]](list)
    evaluations = defaultdict[str, list[Point]](list)
    for line in reader.metrics():
        columns, values = train, _logged(line)
        if line["kind"] == "eval":
            columns, values = evaluations, _evaluated(line)
        for key, value in values:
            if isinstance(value, float | int) or value in _NOT_FINITE:
                _add_point(columns[key], line["step"], float(value))

    settings = reader.object(ORIGINS) or {}
    settings.pop("promise", None)  # which no run uses
    return RunRecord(
        folder,
        name,
        settings=settings,
        result=reader.result() or {},
        train=train,
        evaluations=evaluations,
        events=sorted(_events(folder), key=itemgetter("step", "time")),
        groups=validation_groups(reader),
    )


def choice_of(result: Facts, settings: Mapping[str, Facts]) -> dict[str, str | None]:
    """Model, mode and engine of a run, by its result or else by its settings; None: unknown."""

    def value(key: str) -> Any:
        return settings.get(key, {}).get("value")

    model = filter(None, [value("model.family"), value("model.size")])
    by_settings = {
        "model": ":".join(map(str, model)),
        "mode": value("mode"),
        "engine": value("engine.name"),
    }
    return {name: result.get(name) or text or None for name, text in by_settings.items()}


def _logged(line: Facts) -> Iterator[tuple[str, Any]]:
    """The values of a line of training, those of its parts as `parts.NAME`."""
    for key, value in line.items():
        if key == "parts":
            for name, part in value.items():
                yield f"parts.{name}", part
        elif key not in _COUNTERS:
            yield key, value


def _evaluated(line: Facts) -> Iterator[tuple[str, Any]]:
    """The metrics of an evaluation; those of other splits are named with their split."""
    split = line.get("split", VALIDATION)
    for name, value in line["metrics"].items():
        if split != VALIDATION and not name.startswith(split):
            name = f"{split} {name}"
        yield name, value


def _add_point(column: list[Point], step: int, value: float) -> None:
    """Add a value at `step`; what is not finite is a gap."""
    # A split may be evaluated before and after a resume.
    if column and column[-1][0] >= step:
        column.pop()
    column.append((step, value if isfinite(value) else None))
    if len(column) > MOST_POINTS:
        column[:] = _halved(column)


def _halved(points: Sequence[Point]) -> list[Point]:
    """Half of many points: of each four the lowest and the highest, which a gap is; ends stay."""
    last = len(points) - 1
    # Peaks stay visible, which a mean or every other point would lose.
    half = [points[0]]
    for at in range(1, last, 4):
        part = points[at : min(at + 4, last)]
        ordered = sorted(part, key=lambda point: inf if point[1] is None else point[1])
        half += sorted({ordered[0], ordered[-1]}, key=lambda point: point[0])
    half.append(points[-1])
    return half


def _events(folder: Path) -> Iterator[Json]:
    for path in folder.glob("events*.jsonl"):
        rank = path.stem.removeprefix("events").removeprefix("-rank")
        for line in RunReader(folder).events(path.name):
            if rank:
                line["facts"] = {"rank": rank, **line["facts"]}
            yield {"time": "", **line}


def samples(run: RunRecord, room: int) -> list[Json]:
    """The samples of `run` before and after training; empty: there are none. Reads the disk.

    At each time: `when`, with the step of the weights; `columns` and `rows` of texts; and
    `pictures` with `caption`, and `png` in base64, as many as `room` bytes hold. Raises
    InvalidRecord for a damaged file.
    """
    reader = RunReader(run.folder, redacts=True)
    folder = run.folder / SAMPLES
    times: list[Json] = []
    for when in (AFTER, BEFORE):  # those before have no room first
        content = reader.object(f"{SAMPLES}/{when}.json")
        if not content:
            continue
        with suppress(*OF_ANOTHER_VERSION):
            pictures = []
            for picture in content["pictures"]:
                data = b""
                with suppress(OSError, ValueError):
                    data = read_regular(folder / Path(str(picture["file"])).name)
                png = b64encode(data).decode()
                if data.startswith(b"\x89PNG") and len(png) <= room:
                    room -= len(png)
                    pictures.append({"png": png, "caption": str(picture["caption"])})
            shown = {
                "when": f"{when} training, at step {int(content['step']):,}",
                "columns": content["columns"],
                "rows": [list(map(_text, row)) for row in content["rows"]],
                "pictures": pictures,
            }
            times.insert(0, shown)
    return times


def _text(cell: Any) -> str:
    text = f"{cell:.4g}" if isinstance(cell, float) else str(cell).strip("\n")
    return text if text.strip() else UNKNOWN
