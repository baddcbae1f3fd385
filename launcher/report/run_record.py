"""What a run folder tells of its run, and its samples as cards, read for a report."""

from __future__ import annotations

import os
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from operator import itemgetter
from pathlib import Path
from typing import Any

from gearshift.launcher.config.render import ORIGINS
from gearshift.launcher.report.page import BUCKETS, Point, halved, known
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import RunReader, validation_groups
from gearshift.launcher.run_folder.run_folder import AFTER, BEFORE, SAMPLES
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.checkpoint import manifest
from gearshift.training.checkpoint.manifest import CheckpointError, Manifest
from gearshift.training.logging.encoding import size
from gearshift.training.storage import read_regular

Columns = Mapping[str, list[Point]]
VALIDATION = "val"
"""The split that decides which checkpoint is best."""
_MOST = 4 * BUCKETS
"""Points of a line in memory."""
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
    """origins.json: each key with `value`, `origin`, `layer`, `replaced`."""
    result: Facts
    """result.json; empty: the run has not ended."""
    train: Columns
    """The logged values by key; those of `parts` as `parts.NAME`."""
    evaluations: Columns
    """The values of each metric."""
    events: list[Facts]
    """The lines of events.jsonl and of events-rankN.jsonl, whose facts then have the `rank`."""
    checkpoints: Mapping[str, Manifest]
    """The manifest of each complete checkpoint by its folder's name."""
    profile: Facts = field(default_factory=dict)
    """profile/summary.json; empty: the run was not profiled."""
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
    def checkpoint_rows(self) -> list[tuple[str, str, str, str]]:
        """Step, size, score and links of each checkpoint."""
        # The links best and last lead to checkpoints.
        links = {link: (self.folder / link).resolve().name for link in run_folder.LINKS}
        rows = []
        for folder, checkpoint in self.checkpoints.items():
            bytes_ = sum(file.bytes for file in checkpoint.files)
            score = known(checkpoint.score, lambda score: f"{score.metric} {score.value:.6g}")
            names = [link for link, name in links.items() if name == folder]
            rows.append(
                (
                    f"{checkpoint.step:,}",
                    size(bytes_),
                    score,
                    ", ".join(names),
                )
            )
        return rows

    @property
    def libraries(self) -> Mapping[str, str]:
        """The versions of Python and of the libraries that trained."""
        environment = self.result.get("environment") or {}
        newest = [checkpoint.libraries for checkpoint in self.checkpoints.values()][-1:]
        return environment.get("libraries") or (newest[0] if newest else {})

    def value(self, key: str) -> Any:
        """The value of a setting; None: unknown."""
        return self.settings.get(key, {}).get("value")


def names_of(folders: Sequence[Path]) -> list[str]:
    """A name for each run: as short as can be, and another for each."""
    paths = [folder.absolute() for folder in folders]
    names = ["/".join(path.parts[-1 - is_stage(path) :]) for path in paths]
    if len({*names}) == len(names):
        return names
    # Runs of one name in several folders: by the path below what these share.
    above = Path(os.path.commonpath(paths))
    return [path.relative_to(above).as_posix() for path in paths]


def runs_of(folder: Path) -> list[Path]:
    """The run folder itself, or those of the stages of a staged run. Reads the disk.

    Empty: there is no run.
    """
    stages = RunReader(folder).stages()
    return [path for path in stages.values() or [folder] if run_folder.is_run_folder(path)]


def is_stage(folder: Path) -> bool:
    """Whether the run in `folder` is a stage of a staged run. Reads the disk."""
    return (folder.absolute().parent / run_folder.STAGES).is_file()


def whole(folder: Path, stages: Sequence[RunRecord]) -> RunRecord | None:
    """A staged run as one, with the sums of its stages; None: it is another run. Reads the disk.

    Raises InvalidRecord.
    """
    reader = RunReader(folder, redacts=True)
    if not reader.stages():
        return None
    # Until it ends, its steps are those of its stages.
    result = reader.result() or {"steps": sum(run.steps for run in stages)}
    return RunRecord(
        folder,
        folder.absolute().name,
        settings={},
        result=result,
        train={},
        evaluations={},
        events=[],
        checkpoints={},
    )


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

    manifests = {}
    for path in run_folder.checkpoints(folder).values():
        with suppress(CheckpointError):  # `verify` and `resume` name the damage
            manifests[path.name] = manifest.read(path)
    return RunRecord(
        folder,
        name,
        settings=reader.object(ORIGINS) or {},
        result=reader.result() or {},
        train=train,
        evaluations=evaluations,
        events=sorted(_events(folder), key=itemgetter("step", "time")),
        checkpoints=manifests,
        profile=reader.object(run_folder.PROFILE) or {},
        groups=validation_groups(reader),
    )


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
    if len(column) > _MOST:
        column[:] = halved(column)


def _events(folder: Path) -> Iterator[Json]:
    for path in folder.glob("events*.jsonl"):
        rank = path.stem.removeprefix("events").removeprefix("-rank")
        for line in RunReader(folder).events(path.name):
            if rank:
                line["facts"] = {"rank": rank, **line["facts"]}
            yield {"time": "", **line}


def samples(run: RunRecord, room: int) -> Json | None:
    """The samples of `run` with pictures of at most `room` bytes; None: none. Reads the disk.

    `when` has the times, with the steps of the weights; `left_out` counts the pictures without
    room. Each of the `cards` is a sample: its `name`, its `texts` by column, twice if training
    changed them, and its `pictures` with `when`, `caption`, and `png` in base64. Raises
    InvalidRecord for a damaged file.
    """
    reader = RunReader(run.folder, redacts=True)
    by_time = {}
    for when in (BEFORE, AFTER):
        content = reader.object(f"{SAMPLES}/{when}.json")
        if content:
            by_time[when] = content
    with suppress(*OF_ANOTHER_VERSION):
        return _samples(run.folder / SAMPLES, by_time, room)
    return None


def _samples(folder: Path, by_time: dict[str, Json], room: int) -> Json:
    shapes = []
    for content in by_time.values():
        shapes.append((content["columns"], [row[0] for row in content["rows"]]))
    last_time = [*by_time][-1]
    newest = by_time[last_time]
    if shapes[0] != shapes[-1]:  # a resumed run may have other data
        by_time = {last_time: newest}
    cards = []
    for rows in zip(*(content["rows"] for content in by_time.values()), strict=True):
        cards.append(_card(str(rows[0][0]), _texts(newest["columns"], by_time, rows)))

    # A custom task may draw other things than its samples: then these have cards before the others.
    count = max(len(content["pictures"]) for content in by_time.values())
    picture_cards = cards
    if count != len(cards):
        picture_cards = [_card("", ()) for _ in range(count)]
    left_out = 0
    for when, content in reversed(by_time.items()):  # those before have no room first
        for card, picture in zip(picture_cards, content["pictures"], strict=False):
            png = b""
            with suppress(OSError, ValueError):
                png = read_regular(folder / Path(str(picture["file"])).name)
            text = b64encode(png).decode()
            if not png.startswith(b"\x89PNG") or len(text) > room:
                left_out += 1
                continue
            room -= len(text)
            shown = {
                "when": f"{when} training",
                "png": text,
                "caption": str(picture["caption"]),
            }
            card["pictures"].insert(0, shown)
    if picture_cards is not cards:
        cards = [card for card in picture_cards if card["pictures"]] + cards

    times = []
    for when, content in by_time.items():
        times.append(f"{when} training, at step {int(content['step']):,}")
    return {"when": ", and ".join(times), "cards": cards, "left_out": left_out}


def _card(name: str, texts: Iterable[tuple[str, str]]) -> Json:
    return {"name": name, "texts": [*texts], "pictures": []}


def _texts(
    columns: Sequence[str], times: Iterable[str], rows: Sequence[Sequence[Any]]
) -> Iterator[tuple[str, str]]:
    """Name and text of each column of a sample; the `rows` are the sample at each of the times."""
    for at, column in enumerate(columns[1:], start=1):
        texts = [_text(row[at]) for row in rows]
        if len({*texts}) == 1:
            yield column, texts[0]
            continue
        for when, text in zip(times, texts, strict=True):
            yield f"{column}, {when} training", text


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}"
    text = str(cell).strip("\n")
    return text if text.strip() else "–"
