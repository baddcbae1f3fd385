"""Runs every contestant in turns, and makes rows of what they left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.base import exit_codes, package_guard
from launcher.cli.options import BY_FLAG
from launcher.compare import machine_load, measurements, rows
from launcher.compare.candidates import BASELINE, Candidate, Comparison, Limits
from launcher.compare.machine_load import Load, Watch
from launcher.compare.promises import check
from launcher.compare.rows import Row
from launcher.config import machine
from launcher.config.resolved import CliArgs
from launcher.config.schema import model_name
from launcher.run.signals import answered
from launcher.run_folder import run_folder
from slurm.generation import OF_A_JOB

RUNS = "runs"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class ComparisonFacts:
    """What was asked for, and of which machine."""

    command: str
    machine: str
    device: str
    limits: Limits
    repeats: int
    at: datetime


@dataclass
class CandidateRuns:
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


def run_all(match: Comparison, tell: Tell) -> Outcome:
    """Run all, in turns; what was measured until then also where it is interrupted.

    `tell` is given a line before each run. Touches the disk.
    """
    found = [CandidateRuns() for _ in match.candidates]
    before, loads = machine_load.average(), list[Load]()
    interrupted: list[str] = []
    code = None
    try:
        with signals_as_interrupts():
            _run_in_turns(match, found, loads, tell)
    except Interrupted as end:
        code = end.code
        interrupted.append("interrupted: not every run was made")
    load_warnings = machine_load.load_warnings(before, loads, machine.look().cores)
    return Outcome(_rows(match, found), [*interrupted, *load_warnings], code)


def _run_in_turns(
    match: Comparison, found: Sequence[CandidateRuns], loads: list[Load], tell: Tell
) -> None:
    count = len(match.candidates)
    for repeat in range(1, match.repeats + 1):
        for place in range(count):
            # Another one begins each time: what a machine does to the first or last is shared out.
            number = (place + repeat - 1) % count
            one, progress = match.candidates[number], found[number]
            if progress.error is not None:
                continue
            name = f"{one.mode} {one.engine}"
            tell(f"run {(repeat - 1) * count + place + 1} of {match.repeats * count}: {name}")
            ended = run(one.words, one.folder(match.folder / RUNS, repeat))
            if ended.error is not None:
                progress.error = ended.error
                tell(f"  failed: {ended.error}")
            else:
                progress.runs.append(ended.folder)
            loads.append(ended.load)


def _rows(match: Comparison, found: Sequence[CandidateRuns]) -> list[Row]:
    made = [
        _contestants_rows(match, one, progress)
        for one, progress in zip(match.candidates, found, strict=True)
    ]
    baselines = {row.engine: row for group in made for row in group if row.mode == BASELINE}
    results = []
    for one, group in zip(match.candidates, made, strict=True):
        base = None if one.mode == BASELINE else baselines[one.engine]
        results.append(_with_promises(match, group[0], base, one.promises))
        results += [
            _with_promises(match, row, base, one.promises_of(row.stage or "")) for row in group[1:]
        ]
    return results


def _contestants_rows(match: Comparison, one: Candidate, progress: CandidateRuns) -> list[Row]:
    """Its row, and behind it one for each stage where it trains in stages."""
    settings = one.resolved.settings
    row = Row(
        model=model_name(settings.model),
        mode=one.mode,
        engine=one.engine,
        error=progress.error,
        notes=tuple(one.resolved.notes),
        folders=tuple(str(folder.relative_to(match.folder)) for folder in progress.runs),
    )
    if not progress.runs:
        return [row if row.error else replace(row, error="it was not run")]
    results = [_result(folder) for folder in progress.runs]
    if not any(result.get("stages") for result in results):
        return [_measured(match, row, progress.runs)]
    stages = [
        _measured(
            match,
            replace(row, stage=stage["name"], folders=()),
            [folder / stage["folder"] for folder in progress.runs],
        )
        for stage in results[0]["stages"]
    ]
    return [rows.staged(row, stages), *stages]


def _measured(match: Comparison, row: Row, folders: Sequence[Path]) -> Row:
    runs = [measurements.read(folder, match.limits.until) for folder in folders]
    known = [run for run in runs if run is not None]
    if not known:
        return replace(row, error=row.error or "it took no step")
    return rows.measured(row, known)


def _with_promises(
    match: Comparison, row: Row, base: Row | None, promised: Mapping[str, Any]
) -> Row:
    is_whole, aimed = not match.limits.is_cut, match.limits.until is not None
    own = rows.figures(row, is_whole and not aimed, aimed)
    others = None if base is None else rows.figures(base, is_whole and not aimed, aimed)
    return replace(row, promises=tuple(check(promised, own, others)))


def _result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / run_folder.RESULT).read_text(encoding="utf-8"))
    return found


_GRACE_S = 60.0
"""For a run that was asked to end; after that, or at a second Ctrl-C, it is killed."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    folder: Path
    error: str | None
    """The first line of what was wrong; None: it came to its end."""
    load: Load


class Interrupted(Exception):
    """The person, or the system, wants the comparison to end; `code` is what to end with."""

    def __init__(self, code: int) -> None:
        super().__init__("interrupted")
        self.code = code


def run(words: CliArgs, folder: Path) -> Ended:
    """Train as `words` say, into `folder`, and wait for the end. Raises Interrupted.

    Its checkpoints are gone afterwards: a comparison would fill the disk with them.
    """
    command = [sys.executable, "-m", "launcher", "run", *arguments(words), f"--out={folder}"]
    # Of a job the comparison as a whole is a life, and none of its runs.
    inherited = {name: value for name, value in os.environ.items() if name not in OF_A_JOB}
    environment = {**inherited, "PYTHONPATH": package_guard.search_path(os.environ)}
    watch = Watch()
    # A session of its own: Ctrl-C reaches it through us, and once.
    process = subprocess.Popen(
        [*command, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        content, render = _wait(process)
    finally:
        _forget_state(folder)
    error = None if process.returncode == exit_codes.DONE else _first_line(content, render)
    return Ended(folder, error, watch.load())


def arguments(words: CliArgs) -> list[str]:
    """The words as they are typed behind `run`."""
    typed = [f"--model={words.model}"] if words.model is not None else []
    typed += [f"--mode={words.mode}"] if words.mode is not None else []
    typed += [f"--engine={words.engine}"] if words.engine is not None else []
    typed += [f"--config={path}" for path in words.configs]
    for flag, text in words.options.values():
        typed.append(flag if BY_FLAG[flag].metavar is None else f"{flag}={text}")
    return [*typed, *(f"--set={text}" for text in words.sets)]


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP raise Interrupted, so that what was measured can be kept."""

    def end(number: int, frame: object) -> None:
        is_key = number == signal.SIGINT
        raise Interrupted(exit_codes.INTERRUPTED if is_key else exit_codes.RUN_AGAIN)

    with answered((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), end):
        yield


def _wait(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate()
    except Interrupted:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=_GRACE_S)
        except (Interrupted, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGKILL)  # it leads its session, ranks included
            process.communicate()
        raise


def _forget_state(folder: Path) -> None:
    for checkpoints in folder.glob(f"**/{run_folder.CHECKPOINTS}"):
        shutil.rmtree(checkpoints, ignore_errors=True)
        for link in run_folder.LINKS:
            (checkpoints.parent / link).unlink(missing_ok=True)


def _first_line(content: str, render: str) -> str:
    """Of what the run told in JSON, or else of what it said last on stderr."""
    lines = [line.strip() for line in render.splitlines() if line.strip()]
    text = _error(content) or (lines[-1] if lines else "") or "it ended without a word"
    return text.splitlines()[0].removeprefix("error: ")


def _error(content: str) -> str | None:
    try:
        value: Any = json.loads(content)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    if value.get("diagnostics"):
        return str(value["diagnostics"][0]["message"])
    return value.get("error") or value.get("reason")
