"""What a run folder tells of its run, read for a report."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from gearshift.launcher.config.render import ORIGINS
from gearshift.launcher.report.page import BUCKETS, Point, halved
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.training.checkpoint import manifest
from gearshift.training.checkpoint.manifest import CheckpointError, Manifest
from gearshift.training.logging.quantities import size

Columns = Mapping[str, list[Point]]
VALIDATION = "val"
"""The split that decides which checkpoint is best."""
_MOST = 4 * BUCKETS
"""Points of a line in memory."""


@dataclass(frozen=True)
class RunRecord:
    """The record of one run."""

    folder: Path
    name: str
    """That of the folder; of a stage, below that of its run."""
    settings: Mapping[str, Mapping[str, Any]]
    """origins.json: each key with `value`, `origin`, `layer`, `replaced`."""
    result: Mapping[str, Any]
    """result.json; empty: the run has not ended."""
    train: Columns
    """The logged values by key; those of `parts` as `parts.NAME`."""
    evaluations: Columns
    """The values of each metric."""
    events: list[Mapping[str, Any]]
    """The lines of events.jsonl and of events-rankN.jsonl, whose facts then have the `rank`."""
    checkpoints: Mapping[str, Manifest]
    """The manifest of each complete checkpoint by its folder's name."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """profile/summary.json; empty: the run was not profiled."""

    @property
    def steps(self) -> int:
        """The steps trained, as far as is known."""
        logged = (points[-1][0] for points in self.train.values())
        return int(self.result.get("steps") or max(logged, default=0))

    @property
    def checkpoint_rows(self) -> list[tuple[str, str, str, str]]:
        """Step, size, score and links of each checkpoint."""
        rows = []
        links = {}
        for link in run_folder.LINKS:
            if (path := self.folder / link).is_dir():
                links[link] = path.resolve().name
        for folder, written in self.checkpoints.items():
            score = written.score
            bytes_ = sum(file.bytes for file in written.files)
            text = f"{score.metric} {score.value:.6g}" if score else "–"
            names = ", ".join(link for link, name in links.items() if name == folder)
            rows.append((f"{written.step:,}", size(bytes_), text, names))
        return rows

    @property
    def libraries(self) -> Mapping[str, str]:
        """The versions of Python and of the libraries that trained."""
        facts: Mapping[str, str] = (self.result.get("environment") or {}).get("libraries") or {}
        return facts or next((c.libraries for c in reversed(list(self.checkpoints.values()))), {})

    def value(self, key: str) -> Any:
        """The value of a setting; None: unknown."""
        return self.settings.get(key, {}).get("value")


def names_of(folders: Sequence[Path]) -> list[str]:
    """A name for each run: as short as can be, and another for each."""
    paths = [folder.absolute() for folder in folders]
    names = ["/".join(path.parts[-1 - is_stage(path) :]) for path in paths]
    if len({*names}) == len(names):
        return names
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
    result = reader.result() or {"steps": sum(run.steps for run in stages)}
    return RunRecord(folder, folder.absolute().name, {}, result, {}, {}, [], {})


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
        is_train = line["kind"] == "train"
        for key, value in _values(line) if is_train else _metrics(line):
            if isinstance(value, float | int) or value in ("NaN", "Infinity", "-Infinity"):
                column = (train if is_train else evaluations)[key]
                number = float(value)
                # A split may be evaluated before and after a resume.
                if column and column[-1][0] >= line["step"]:
                    del column[-1]
                column.append((line["step"], number if isfinite(number) else None))
                if len(column) > _MOST:
                    column[:] = halved(column)
    return RunRecord(
        folder,
        name,
        reader.object(ORIGINS) or {},
        reader.result() or {},
        train,
        evaluations,
        sorted(_events(folder), key=lambda event: (event["step"], event["time"])),
        _checkpoints(folder),
        reader.object(run_folder.PROFILE) or {},
    )


_COUNTERS = ("kind", "step", "epoch", "samples", "tokens", "labelled_tokens")
"""Keys of a line that no chart shows."""


def _values(line: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in line.items():
        if key == "parts" and isinstance(value, dict):
            yield from ((f"parts.{name}", part) for name, part in value.items())
        elif value is not None and key not in _COUNTERS:
            yield key, value


def _metrics(line: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The metrics of an evaluation; those of other splits are named with their split."""
    split = str(line.get("split", VALIDATION))
    for name, value in line["metrics"].items():
        yield name if split == VALIDATION or name.startswith(split) else f"{split} {name}", value


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    for path in folder.glob("events*.jsonl"):
        rank = path.stem.removeprefix("events").removeprefix("-rank")
        of_rank = {"rank": rank} if rank else {}
        for line in RunReader(folder).events(path.name):
            yield {"time": "", **line, "facts": of_rank | line["facts"]}


def _checkpoints(folder: Path) -> dict[str, Manifest]:
    manifests = {}
    for path in run_folder.checkpoints(folder).values():
        with suppress(CheckpointError):  # `verify` and `resume` name the damage
            manifests[path.name] = manifest.read(path)
    return manifests
