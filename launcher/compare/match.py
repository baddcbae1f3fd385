"""Runs every contestant in turns, and makes rows of what they left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.compare import busy, child, measures, rows
from launcher.compare.busy import Load
from launcher.compare.child import Interrupted
from launcher.compare.contestants import BASELINE, Contestant, Limits, Match
from launcher.compare.promises import judge
from launcher.compare.rows import Row
from launcher.config import machine
from launcher.config.schema import model_name
from launcher.run_folder import run_folder

RUNS = "runs"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Facts:
    """What was asked for, and of which machine."""

    command: str
    machine: str
    device: str
    limits: Limits
    repeats: int
    at: datetime


@dataclass
class Found:
    """What the repeats of one contestant came to so far."""

    runs: list[Path] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class Outcome:
    """A comparison that has ended."""

    rows: Sequence[Row]
    warnings: Sequence[str]
    """What makes its numbers doubtful."""
    code: int | None = None
    """What to end with, where it was interrupted; None: it came to its end."""

    @property
    def is_sound(self) -> bool:
        """No run failed, and no promise was broken."""
        broken = any(one.kept is False for row in self.rows for one in row.promises)
        return not broken and not any(row.error for row in self.rows)


def hold(match: Match, tell: Tell) -> Outcome:
    """Run all, in turns; what was measured until then also where it is interrupted.

    `tell` is given a line before each run. Touches the disk.
    """
    found = [Found() for _ in match.contestants]
    before, loads = busy.average(), list[Load]()
    interrupted: list[str] = []
    code = None
    try:
        with child.signals_as_interrupts():
            _run_all(match, found, loads, tell)
    except Interrupted as end:
        code = end.code
        interrupted.append("interrupted: not every run was made")
    doubts = busy.doubts(before, loads, machine.look().cores)
    return Outcome(_rows(match, found), [*interrupted, *doubts], code)


def _run_all(match: Match, found: Sequence[Found], loads: list[Load], tell: Tell) -> None:
    count = len(match.contestants)
    for repeat in range(1, match.repeats + 1):
        for place in range(count):
            # Another one begins each time: what a machine does to the first or last is shared out.
            number = (place + repeat - 1) % count
            one, so_far = match.contestants[number], found[number]
            if so_far.error is not None:
                continue
            name = f"{one.mode} {one.engine}"
            tell(f"run {(repeat - 1) * count + place + 1} of {match.repeats * count}: {name}")
            ended = child.run(one.words, one.folder(match.folder / RUNS, repeat))
            if ended.error is not None:
                so_far.error = ended.error
                tell(f"  failed: {ended.error}")
            else:
                so_far.runs.append(ended.folder)
            loads.append(ended.load)


def _rows(match: Match, found: Sequence[Found]) -> list[Row]:
    made = [
        _contestants_rows(match, one, so_far)
        for one, so_far in zip(match.contestants, found, strict=True)
    ]
    baselines = {row.engine: row for group in made for row in group if row.mode == BASELINE}
    judged = []
    for one, group in zip(match.contestants, made, strict=True):
        base = None if one.mode == BASELINE else baselines[one.engine]
        judged.append(_judged(match, group[0], base, one.promises))
        judged += [_judged(match, row, base, one.promises_of(row.stage or "")) for row in group[1:]]
    return judged


def _contestants_rows(match: Match, one: Contestant, so_far: Found) -> list[Row]:
    """Its row, and behind it one for each stage where it trains in stages."""
    settings = one.resolved.settings
    row = Row(
        model=model_name(settings.model),
        mode=one.mode,
        engine=one.engine,
        error=so_far.error,
        notes=tuple(one.resolved.notes),
        folders=tuple(str(folder.relative_to(match.folder)) for folder in so_far.runs),
    )
    if not so_far.runs:
        return [row if row.error else replace(row, error="it was not run")]
    results = [_result(folder) for folder in so_far.runs]
    if not any(result.get("stages") for result in results):
        return [_measured(match, row, so_far.runs)]
    stages = [
        _measured(
            match,
            replace(row, stage=stage["name"], folders=()),
            [folder / stage["folder"] for folder in so_far.runs],
        )
        for stage in results[0]["stages"]
    ]
    return [rows.staged(row, stages), *stages]


def _measured(match: Match, row: Row, folders: Sequence[Path]) -> Row:
    runs = [measures.read(folder, match.limits.until) for folder in folders]
    known = [run for run in runs if run is not None]
    if not known:
        return replace(row, error=row.error or "it took no step")
    return rows.measured(row, known)


def _judged(match: Match, row: Row, base: Row | None, promised: Mapping[str, Any]) -> Row:
    is_whole, aimed = not match.limits.is_cut, match.limits.until is not None
    own = rows.figures(row, is_whole and not aimed, aimed)
    others = None if base is None else rows.figures(base, is_whole and not aimed, aimed)
    return replace(row, promises=tuple(judge(promised, own, others)))


def _result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / run_folder.RESULT).read_text(encoding="utf-8"))
    return found
