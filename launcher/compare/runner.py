"""Run all candidates in turns and summarize their runs as rows."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from launcher.base import environment, exit_codes
from launcher.base.diagnostics import SettingsError
from launcher.base.ending import kill_children
from launcher.base.signals import Stopped, handling
from launcher.compare import measurements, rows, study_results
from launcher.compare.candidates import BASELINE, ComparisonLimits, ModeCandidate, PlannedComparison
from launcher.compare.promises import Figures, check, split_by_samples
from launcher.compare.rows import ComparisonRow
from launcher.compare.study import Study
from launcher.config import machine
from launcher.config.options import BY_FLAG
from launcher.config.provenance import CliArgs
from launcher.config.schema import model_name
from launcher.run_folder import run_folder
from launcher.run_folder.reader import RunReader
from slurm.environment import JOB_VARIABLES
from training.callbacks.preemption import heeded

Planned = dict[tuple[str, str], Mapping[str | None, Figures]]
"""By mode and engine: planned figures by stage; of the whole run under None."""
PrintLine = Callable[[str], None]
PlanAll = Callable[[PlannedComparison, PrintLine], Planned]


@dataclass(frozen=True)
class ComparisonFacts:
    """The command, the machine and the limits of a comparison."""

    command: str
    machine: str
    device: str
    limits: ComparisonLimits
    repeats: int
    at: datetime
    study: Study | None = None


@dataclass
class CandidateRuns:
    """The finished runs of one candidate."""

    runs: list[Path] = field(default_factory=list)
    error: str | None = None
    failed: dict[str, str] = field(default_factory=dict)
    """Of a study: errors by round, of which the other rounds are independent."""


RunInTurns = Callable[[PlannedComparison, Sequence[CandidateRuns], "list[Load]", PrintLine], None]


@dataclass(frozen=True)
class ComparisonOutcome:
    """The result of a comparison."""

    rows: Sequence[ComparisonRow]
    warnings: Sequence[str]
    """Reasons why its numbers may be unreliable."""
    code: int | None = None
    """The exit code after an interruption; None: not interrupted."""

    @property
    def is_sound(self) -> bool:
        """Whether no run failed and no promise was broken, as far as it was measured."""
        results = [item for row in self.rows for item in row.promises]
        broken = any(item.kept is False and not item.planned for item in results)
        failed = any(row.error or (row.study and row.study.failed) for row in self.rows)
        return not broken and not failed

    @property
    def is_empty(self) -> bool:
        """Whether an interruption came before the first run was complete."""
        return self.code is not None and not any(row.folders for row in self.rows)


def run_all(
    comparison: PlannedComparison,
    report_line: PrintLine,
    plan: PlanAll | None = None,
    in_turns: RunInTurns | None = None,
) -> ComparisonOutcome:
    """Run all candidates in turns; an interruption keeps what was measured so far.

    `report_line` gets a line before each run; `plan` plans the candidates afterwards; `in_turns`
    runs a study. Touches the disk.
    """
    candidates = [CandidateRuns() for _ in comparison.candidates]
    before, loads = os.getloadavg()[0], list[Load]()
    interrupted: list[str] = []
    code, plans = None, Planned()
    try:
        with signals_as_interrupts():
            (in_turns or _run_in_turns)(comparison, candidates, loads, report_line)
            plans = plan(comparison, report_line) if plan is not None else plans
    except ComparisonInterrupted as end:
        code = end.code
        runs = len(comparison.own_rounds)
        is_done = all(each.error or len(each.runs) >= runs for each in candidates)
        interrupted.append(f"interrupted: not all {'plans' if is_done else 'runs'} were made")
    busy = load_warnings(before, loads, machine.detect_machine().cores)
    return ComparisonOutcome(_rows(comparison, candidates, plans), [*interrupted, *busy], code)


def _run_in_turns(
    comparison: PlannedComparison,
    candidates: Sequence[CandidateRuns],
    loads: list[Load],
    report_line: PrintLine,
) -> None:
    count = comparison.repeats * len(comparison.candidates)
    for at, (number, entry) in enumerate(comparison.turns, start=1):
        item, progress = comparison.candidates[number], candidates[number]
        if progress.error is not None:
            continue
        report_line(f"run {at} of {count}: {item.name}")
        finished = run(item.args, comparison.run_folder(number, entry))
        if finished.error is not None:
            progress.error = finished.error
            report_line(f"  failed: {finished.error}")
        else:
            progress.runs.append(finished.folder)
        loads.append(finished.load)


def _rows(
    comparison: PlannedComparison, candidates: Sequence[CandidateRuns], plans: Planned
) -> list[ComparisonRow]:
    groups = [
        _candidate_rows(comparison, item, progress)
        for item, progress in zip(comparison.candidates, candidates, strict=True)
    ]
    if comparison.study is not None:
        _add_figures(comparison, comparison.study, candidates, groups)
    baselines = {row.engine: row for group in groups for row in group if row.mode == BASELINE}
    results = []
    for item, group in zip(comparison.candidates, groups, strict=True):
        base = None if item.mode == BASELINE else baselines[item.engine]
        row = replace(group[0], unpromised=item.unpromised)
        results.append(_with_promises(comparison, row, base, item.promises, plans))
        for row in group[1:]:
            stage = row.stage or ""
            row = replace(row, unpromised=item.unpromised_of(stage))
            results.append(_with_promises(comparison, row, base, item.promises_of(stage), plans))
    return results


def _add_figures(
    comparison: PlannedComparison,
    study: Study,
    candidates: Sequence[CandidateRuns],
    groups: Sequence[list[ComparisonRow]],
) -> None:
    """Give the row of each candidate what the study shows of it.

    A mode is compared with mode default under the same engine, and mode default with its first
    engine.
    """
    for number, (progress, group) in enumerate(zip(candidates, groups, strict=True)):
        folders = {entry.name: comparison.run_folder(number, entry) for entry in comparison.rounds}
        runs = {name: folder for name, folder in folders.items() if folder in progress.runs}
        found = study_results.figures(study, runs, progress.failed)
        base = next(
            of[0]
            for of in groups
            if of[0].mode == BASELINE
            and (group[0].mode == BASELINE or of[0].engine == group[0].engine)
        )
        if base.study is not None:
            found = study_results.against(study, group[0].name, found, base.name, base.study)
        group[0] = replace(group[0], study=found)


def _candidate_rows(
    comparison: PlannedComparison, item: ModeCandidate, progress: CandidateRuns
) -> list[ComparisonRow]:
    """The row of a candidate, followed by one per stage in staged training."""
    settings = item.resolved.settings
    row = ComparisonRow(
        model=model_name(settings.model),
        mode=item.mode,
        engine=item.engine,
        error=progress.error,
        notes=tuple(item.resolved.notes),
        folders=tuple(str(folder.relative_to(comparison.folder)) for folder in progress.runs),
    )
    if not progress.runs:
        return [row if row.error else replace(row, error=rows.NOT_RUN)]
    try:
        results = [RunReader(folder).result() or {} for folder in progress.runs]
    except SettingsError as error:  # a damaged file
        return [replace(row, error=error.diagnostics[0].message)]
    if not any(result.get("stages") for result in results):
        return [_measured(comparison, row, progress.runs)]
    stages = [
        _measured(
            comparison,
            replace(row, stage=stage["name"], folders=()),
            [folder / stage["folder"] for folder in progress.runs],
        )
        for stage in results[0]["stages"]
    ]
    return [rows.staged(row, stages), *stages]


def _measured(
    comparison: PlannedComparison, row: ComparisonRow, folders: Sequence[Path]
) -> ComparisonRow:
    try:
        runs = [measurements.read(folder, comparison.limits.until) for folder in folders]
    except SettingsError as error:  # a damaged file
        return replace(row, error=error.diagnostics[0].message)
    known = [run for run in runs if run is not None]
    if not known:
        return replace(row, error=row.error or "it took no step")
    return rows.measured(row, known)


def _with_promises(
    comparison: PlannedComparison,
    row: ComparisonRow,
    base: ComparisonRow | None,
    promised: Mapping[str, Any],
    plans: Planned,
) -> ComparisonRow:
    has_goal = comparison.limits.until is not None
    is_whole = not comparison.limits.is_cut and not has_goal
    figures = rows.figures(row, is_whole, has_goal)
    others = None if base is None else rows.figures(base, is_whole, has_goal)
    promised, few = split_by_samples(promised, (base or row).samples)
    planned_row = plans.get((row.mode, row.engine), {}).get(row.stage)
    planned_base = plans.get((BASELINE, row.engine), {}).get(None)
    pair = None
    if planned_row is not None and planned_base is not None:
        pair = (planned_row, planned_base)
    results = check(promised, figures, others, pair)
    ours, theirs = row.study, None if base is None else base.study
    if comparison.study is not None and ours is not None and theirs is not None:
        results = [study_results.judged(comparison.study, item, ours, theirs) for item in results]
    return replace(row, promises=tuple(results), unpromised={**row.unpromised, **few})


_GRACE_S = 4.0
"""Seconds that an interrupted run has to end; after that, or at a second Ctrl-C, it is killed."""


@dataclass(frozen=True)
class MeasuredRun:
    """How a run ended."""

    folder: Path
    error: str | None
    """The first line of the error; None: the run completed."""
    load: Load
    seconds: float
    """From the start of its process to its end."""


class ComparisonInterrupted(Exception):
    """Ctrl-C or a signal ends the comparison; `code` is the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__("interrupted")
        self.code = code


_ENDING = (ComparisonInterrupted, KeyboardInterrupt, Stopped)


def run(args: CliArgs, folder: Path) -> MeasuredRun:
    """Train with `args` into `folder` and wait for the end.

    Raises Interrupted, or KeyboardInterrupt or Stopped without `signals_as_interrupts`; nothing of
    the run is left then.

    Deletes its checkpoints afterwards, which would fill the disk.
    """
    command = [sys.executable, "-m", "launcher", "run", *arguments(args), f"--out={folder}"]
    watch = Watch()
    # Its own session: Ctrl-C reaches it once, through this process.
    process = subprocess.Popen(
        [*command, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=variables(),
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate()
    except _ENDING:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=_GRACE_S)
        except (*_ENDING, subprocess.TimeoutExpired):
            kill_children()
            process.communicate()
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another run is in it, or it was there before
            folder.parent.rmdir()
            folder.parent.parent.rmdir()
        raise
    finally:
        for checkpoints in folder.glob(f"**/{run_folder.CHECKPOINTS}"):
            shutil.rmtree(checkpoints, ignore_errors=True)
            for link in run_folder.LINKS:
                (checkpoints.parent / link).unlink(missing_ok=True)
    error = None if process.returncode == exit_codes.DONE else first_line(stdout, stderr)
    return MeasuredRun(folder, error, watch.load(), watch.seconds)


def variables() -> dict[str, str]:
    """The environment of a run: in a Slurm job the comparison is a generation; its runs are not."""
    known = environment.variables()
    inherited = {name: value for name, value in known.items() if name not in JOB_VARIABLES}
    return {**inherited, "PYTHONPATH": environment.python_path()}


def arguments(args: CliArgs) -> list[str]:
    """The command-line arguments of `run` for `args`."""
    words = [f"--model={args.model}"] if args.model is not None else []
    words += [f"--mode={args.mode}"] if args.mode is not None else []
    words += [f"--engine={args.engine}"] if args.engine is not None else []
    words += [f"--config={path}" for path in args.configs]
    for flag, text in args.options.values():
        words.append(flag if BY_FLAG[flag].metavar is None else f"{flag}={text}")
    return [*words, *(f"--set={text}" for text in args.sets)]


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Make the signals that end a command raise Interrupted, so that measurements are kept."""

    def end(number: int, frame: object) -> None:
        is_key = number == signal.SIGINT
        raise ComparisonInterrupted(exit_codes.INTERRUPTED if is_key else exit_codes.RUN_AGAIN)

    with handling(heeded(), end):
        yield


def first_line(stdout: str, stderr: str) -> str:
    """The first line of the error in the JSON output, or else the last line of stderr."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    text = lines[-1] if lines else "it ended without a message"
    with suppress(ValueError):
        value: Any = json.loads(stdout)
        if isinstance(value, dict) and value.get("diagnostics"):
            text = str(value["diagnostics"][0]["message"])
        elif isinstance(value, dict):
            text = value.get("error") or value.get("reason") or text
    return text.splitlines()[0].removeprefix("error: ")


@dataclass(frozen=True)
class Load:
    """Use of the machine by other programs."""

    others: float
    """Cores that other programs kept busy, on average."""
    cores: int
    """Of the whole machine."""

    def is_doubtful(self, wanted: int) -> bool:
        """Whether less than 85% of `wanted` cores were free: times are unreliable then."""
        return self.cores - self.others < 0.85 * min(wanted, self.cores)


class Watch:
    """Measures the load from its construction on, without this process and its children."""

    def __init__(self) -> None:
        self._began, self._others_s = time.monotonic(), _others_s()

    @property
    def seconds(self) -> float:
        """Since construction."""
        return max(time.monotonic() - self._began, 1e-3)

    def load(self) -> Load:
        """Load by other programs since construction."""
        others = (_others_s() - self._others_s) / self.seconds
        return Load(max(0.0, others), psutil.cpu_count() or 1)


def load_warnings(before: float, loads: Sequence[Load], wanted: int) -> Iterator[str]:
    """Warnings where `wanted` cores were not free before or during the runs."""
    if before > wanted / 2:
        load = f"load average {before:.1f} on {wanted} cores"
        yield f"the machine was busy before the first run: {load}"
    full = [load for load in loads if load.is_doubtful(wanted)]
    if full:
        low, high = (f"{end(item.others for item in full):.1f}" for end in (min, max))
        took = low if low == high else f"{low} to {high}"
        yield (
            f"other programs used {took} of {full[0].cores} cores during {len(full)} of "
            f"{len(loads)} runs: times and ratios are unreliable"
        )


def _others_s() -> float:
    """Seconds that cores were busy since the start of the machine, without our own."""
    idle = ("idle", "iowait", "guest", "guest_nice")
    times = psutil.cpu_times()._asdict()
    spent = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own_s = sum(item.ru_utime + item.ru_stime for item in spent)
    return float(sum(seconds for name, seconds in times.items() if name not in idle)) - own_s
