"""Run all candidates in turns, plan those that need a GPU, and summarize their runs as rows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.base import environment, exit_codes
from launcher.base.diagnostics import SettingsError
from launcher.base.signals import handling, kill_children
from launcher.compare import rows
from launcher.compare.candidates import BASELINE, ModeCandidate, PlannedComparison
from launcher.compare.promises import BYTES, CARD, GPU_MEMORY, check
from launcher.compare.rows import ComparisonRow
from launcher.config.command_line import BY_FLAG
from launcher.config.provenance import CliArgs
from launcher.config.schema import model_name
from launcher.run_folder import run_folder
from launcher.run_folder.reader import RunReader
from slurm.environment import JOB_VARIABLES
from training.callbacks.preemption import heeded

Ended = dict[str, Path | str]
"""The folders of the ended runs of one candidate by round, or their errors."""
Peaks = dict[str | None, float]
"""Planned peaks of a candidate in bytes by stage, the largest under None; empty: there is no plan."""
_GRACE_S = 4.0
"""Seconds that an interrupted run has to end; after that, or at a second Ctrl-C, it is killed."""


@dataclass(frozen=True)
class ComparisonOutcome:
    """The result of a comparison."""

    rows: Sequence[ComparisonRow]
    warnings: Sequence[str] = ()
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


class ComparisonInterrupted(Exception):
    """Ctrl-C or a signal ends the comparison; with the exit code."""


def run_all(comparison: PlannedComparison, report_line: Callable[[str], None]) -> ComparisonOutcome:
    """Run all candidates in turns; an interruption keeps what was measured so far.

    `report_line` gets a line before each run. Touches the disk.
    """
    ended: list[Ended] = [{} for _ in comparison.candidates]
    warnings, code = list[str](), None
    if (load := os.getloadavg()[0]) >= 1:
        warnings.append(f"other programs use about {load:.1f} cores: times and ratios are unreliable")
    turns, title, peaks = list(comparison.turns), comparison.study.title, dict[str, Peaks]()

    def end(number: int, frame: object) -> None:
        is_key = number == signal.SIGINT
        raise ComparisonInterrupted(exit_codes.INTERRUPTED if is_key else exit_codes.RUN_AGAIN)

    try:
        with handling(heeded(), end):
            for at, (number, entry) in enumerate(turns, start=1):
                item, runs = comparison.candidates[number], ended[number]
                # The rounds of a study are independent; a repeat is the same run again.
                if not title and any(isinstance(each, str) for each in runs.values()):
                    continue
                report_line(f"run {at} of {len(turns)}: {item.name}{title and f' {entry.name}'}")
                folder = comparison.run_folder(number, entry)
                error = run(item.args.with_sets(entry.sets), folder)
                runs[entry.name] = error or folder
                if error is not None:
                    report_line(f"  failed: {error}")
            peaks = plan_peaks(comparison)
    except ComparisonInterrupted as interrupted:
        code = interrupted.args[0]
        warnings.append("interrupted: not all runs were made")
    return ComparisonOutcome(_rows(comparison, ended, peaks), warnings, code)


def _rows(
    comparison: PlannedComparison, ended: Sequence[Ended], peaks: Mapping[str, Peaks]
) -> list[ComparisonRow]:
    """The rows of all candidates, mode default first, each followed by those of its stages."""
    wholes, results = dict[tuple[str, str], ComparisonRow](), list[ComparisonRow]()
    for item, runs in zip(comparison.candidates, ended, strict=True):
        is_base = item.mode == BASELINE
        # Mode default is compared with that of the first engine.
        engine = comparison.candidates[0].engine if is_base else item.engine
        group = _candidate_rows(comparison, item, runs, wholes.get((BASELINE, engine)))
        wholes[item.mode, item.engine] = group[0]
        ours, theirs = (peaks.get(f"{mode} {item.engine}", {}) for mode in (item.mode, BASELINE))
        for row in group:
            promised, unpromised = item.promised(row.stage)
            kept = check(
                promised,
                row,
                None if is_base else wholes[BASELINE, item.engine],
                is_cut=bool(comparison.limits),
                study=comparison.study,
                planned=(ours[row.stage], theirs[None]) if row.stage in ours and theirs else None,
            )
            results.append(replace(row, promises=tuple(kept), unpromised=unpromised))
    return results


def _candidate_rows(
    comparison: PlannedComparison, item: ModeCandidate, runs: Ended, reference: ComparisonRow | None
) -> list[ComparisonRow]:
    """The row of a candidate, followed by one per stage in staged training."""
    study, until = comparison.study, comparison.until
    folders = {name: end for name, end in runs.items() if isinstance(end, Path)}
    failed = {name: end for name, end in runs.items() if isinstance(end, str)}
    error = next(iter(failed.values())) if failed and not (study.title and folders) else None
    row = ComparisonRow(
        model=model_name(item.resolved.settings.model),
        mode=item.mode,
        engine=item.engine,
        error=error or (None if folders else rows.NOT_RUN),
        notes=tuple(item.resolved.notes),
        folders=tuple(str(folder.relative_to(comparison.folder)) for folder in folders.values()),
    )
    found, parts = dict[str, tuple[Path, rows.RunMeasurements | None]](), list[ComparisonRow]()
    try:
        for stage in (item.stages or (None,)) if folders else ():
            found = {}
            for name, folder in folders.items():
                inner = folder if stage is None else RunReader(folder).stages()[stage]
                found[name] = inner, rows.read(inner, until)
            known = [run for _, run in found.values() if run is not None]
            part = row if stage is None else replace(row, stage=stage, folders=())
            took_none = replace(part, error=error or "it took no step")
            parts.append(rows.measured(part, known, until is not None) if known else took_none)
        if parts:
            row = rows.staged(row, parts) if item.stages else parts.pop()
        if study.title:
            base = (reference.name, reference.study) if reference and reference.study else None
            row = replace(row, study=rows.figures(study, found, failed, base))
    except SettingsError as damaged:
        return [replace(row, error=damaged.diagnostics[0].message)]
    return [row, *parts]


def run(args: CliArgs, folder: Path) -> str | None:
    """Train with `args` into `folder` and wait for the end; gives the first line of the error.

    Deletes its checkpoints afterwards, which would fill the disk. Raises ComparisonInterrupted;
    nothing of the run is left then.
    """
    command = [sys.executable, "-m", "launcher", "run", *arguments(args), f"--out={folder}", "--json"]
    process = subprocess.Popen(
        command,
        env=_variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches it once, through this process
    )
    try:
        stdout, stderr = process.communicate()
    except ComparisonInterrupted:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=_GRACE_S)
        except (ComparisonInterrupted, subprocess.TimeoutExpired):
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
    if process.returncode == exit_codes.DONE:
        return None
    text = (stderr.strip().splitlines() or ["it ended without a message"])[-1].strip()
    with suppress(ValueError, AttributeError):
        value: Any = json.loads(stdout)
        messages = [each["message"] for each in value.get("diagnostics") or ()]
        text = next(filter(None, (*messages, value.get("error"), value.get("reason"))), text)
    return text.splitlines()[0].removeprefix("error: ")


def plan_peaks(comparison: PlannedComparison) -> dict[str, Peaks]:
    """By name the planned peaks of the candidates that promise memory of a GPU and have none, and of
    mode default under their engines. Those whose plan fails are empty.
    """
    planned = dict[str, Peaks]()
    for item in comparison.candidates:
        measures = {name for run in (item.resolved, *item.stages.values()) for name in run.promises}
        if item.resolved.device != "cpu" or not measures & {GPU_MEMORY, GPU_MEMORY + BYTES}:
            continue
        bases = [o for o in comparison.candidates if (o.mode, o.engine) == (BASELINE, item.engine)]
        for each in (*bases, item):
            if each.name not in planned:
                planned[each.name] = _planned(each, comparison.limits)
    return planned


def _planned(item: ModeCandidate, limits: Sequence[str]) -> Peaks:
    args = replace(item.args, sets=[text for text in item.args.sets if text not in limits])
    line = [sys.executable, "-m", "launcher", "plan", *arguments(args.with_sets(["device=auto"])), "--json"]
    line += [f"--gpu={CARD}", f"--gpus={item.resolved.nproc}"]
    done = subprocess.run(line, capture_output=True, text=True, env=_variables())
    if done.returncode:
        return {}
    content: Any = json.loads(done.stdout)
    plans = {None: content} if "engine" in content else content
    totals = {name: plan["device_peak_bytes"]["total"] for name, plan in plans.items()}
    return {None: max(totals.values()), **totals}


def _variables() -> dict[str, str]:
    """The environment of a run: in a Slurm job the comparison is a generation; its runs are not."""
    known = environment.variables()
    inherited = {name: value for name, value in known.items() if name not in JOB_VARIABLES}
    return {**inherited, "PYTHONPATH": environment.python_path()}


def arguments(args: CliArgs) -> list[str]:
    """The command-line arguments of `run` for `args`."""
    named = {"model": args.model, "mode": args.mode, "engine": args.engine}
    words = [f"--{name}={value}" for name, value in named.items() if value is not None]
    words += [f"--config={path}" for path in args.configs]
    for flag, text in args.options.values():
        words.append(flag if BY_FLAG[flag].metavar is None else f"{flag}={text}")
    return [*words, *(f"--set={text}" for text in args.sets)]
