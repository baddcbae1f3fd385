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

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.base.signals import code_of, handling, heeded, kill_children
from gearshift.launcher.compare import rows
from gearshift.launcher.compare.candidates import (
    AFTER,
    AT,
    BASELINE,
    ModeCandidate,
    PlannedComparison,
)
from gearshift.launcher.compare.promises import BYTES, CARD, GPU_MEMORY, check
from gearshift.launcher.compare.rows import ComparisonRow
from gearshift.launcher.config.argument_list import arguments
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.schema import model_name
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.slurm.environment import JOB_VARIABLES

Ended = dict[str, Path | str]
"""The folders of the ended runs of one candidate by round, or their errors."""
Peaks = dict[str | None, float]
"""Planned peaks of a candidate in bytes by stage, the largest under None; empty: no plan."""
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
        for row in self.rows:
            if row.error or (row.study and row.study.failed):
                return False
            for promise in row.promises:
                if promise.kept is False and not promise.planned:
                    return False
        return True


def run_all(comparison: PlannedComparison, report_line: Callable[[str], None]) -> ComparisonOutcome:
    """Run all candidates in turns; an interruption keeps what was measured so far.

    `report_line` gets a line before each run. Touches the disk.
    """
    study = comparison.study
    ended: list[Ended] = [{} for _ in comparison.candidates]
    warnings: list[str] = []
    code = None
    peaks: dict[str, Peaks] = {}
    load = os.getloadavg()[0]
    if load >= 1:
        warnings.append(
            f"other programs use about {load:.1f} cores: times and ratios are unreliable"
        )
    turns = list(comparison.turns)

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt(code_of(number))

    try:
        with handling(heeded(), end):
            for position, (number, name) in enumerate(turns, start=1):
                item = comparison.candidates[number]
                runs = ended[number]
                label = f"{item.name} {name}" if study.title else item.name
                report_line(f"run {position} of {len(turns)}: {label}")
                folder = comparison.run_folder(number, name)
                error = run(item.args.with_sets(study.rounds[name]), folder)
                runs[name] = error or folder
                if error:
                    report_line(f"  failed: {error}")
            peaks = plan_peaks(comparison)
    except KeyboardInterrupt as interrupted:
        code = interrupted.args[0]
        warnings.append("interrupted: not all runs were made")
    return ComparisonOutcome(_rows(comparison, ended, peaks), warnings, code)


def _rows(
    comparison: PlannedComparison, ended: Sequence[Ended], peaks: Mapping[str, Peaks]
) -> list[ComparisonRow]:
    """The rows of all candidates, mode default first, each followed by those of its stages."""
    bases: dict[str, ComparisonRow] = {}
    results: list[ComparisonRow] = []
    for item, runs in zip(comparison.candidates, ended, strict=True):
        is_base = item.mode == BASELINE
        # Mode default is compared with that of the first engine.
        base = bases.get(comparison.candidates[0].engine if is_base else item.engine)
        group = _candidate_rows(comparison, item, runs, base)
        if is_base:
            # It has no ratio to itself.
            bases[item.engine] = group[0]
            base = None
        item_peaks = peaks.get(item.name, {})
        base_peaks = peaks.get(f"{BASELINE} {item.engine}")
        for row in group:
            promised, unpromised = item.promised(row.stage)
            planned = None
            if base_peaks and row.stage in item_peaks:
                planned = (item_peaks[row.stage], base_peaks[None])
            promises = check(
                promised,
                row,
                base,
                is_cut=bool(comparison.limits),
                study=comparison.study,
                planned=planned,
            )
            results.append(replace(row, promises=tuple(promises), unpromised=unpromised))
    return results


def _candidate_rows(
    comparison: PlannedComparison, item: ModeCandidate, runs: Ended, reference: ComparisonRow | None
) -> list[ComparisonRow]:
    """The row of a candidate, followed by one per stage in staged training."""
    study = comparison.study
    until = comparison.until
    folders = {name: end for name, end in runs.items() if isinstance(end, Path)}
    failed = {name: end for name, end in runs.items() if isinstance(end, str)}
    error = None if folders else rows.NOT_RUN
    # A study goes on after a failure: its other rounds have figures.
    if failed and not (study.title and folders):
        error = next(iter(failed.values()))
    row = ComparisonRow(
        model=model_name(item.resolved.settings.model),
        mode=item.mode,
        engine=item.engine,
        error=error,
        folders=tuple(str(folder.relative_to(comparison.folder)) for folder in folders.values()),
    )
    known: rows.Rounds = {}
    parts: list[ComparisonRow] = []
    stages: list[str | None] = []
    if folders:
        stages = [*item.stages] or [None]
    try:
        for stage in stages:
            part = row
            of_stage = folders
            if stage:
                part = replace(row, stage=stage, folders=())
                of_stage = {name: RunReader(f).stages()[stage] for name, f in folders.items()}
            known = {name: (folder, rows.read(folder, until)) for name, folder in of_stage.items()}
            measurements = [run for _, run in known.values() if run]
            if measurements:
                part = rows.measured(part, measurements, has_goal=bool(until))
            else:
                part = replace(part, error=error or "it took no step")
            parts.append(part)
        if item.stages and parts:
            row = rows.staged(row, parts)
        elif parts:
            row = parts.pop()
        if study.title:
            row = replace(row, study=rows.figures(study, known, failed, reference))
    except SettingsError as damaged:
        return [replace(row, error=damaged.diagnostics[0].message)]
    return [row, *parts]


def run(args: CliArgs, folder: Path) -> str | None:
    """Train with `args` into `folder` and wait for the end; gives the first line of the error.

    Deletes its checkpoints afterwards, which would fill the disk. Raises KeyboardInterrupt; nothing
    of the run is left then.
    """
    process = subprocess.Popen(
        _command("run", args, f"--out={folder}"),
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
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=_GRACE_S)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
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
    # The errors as JSON are whole, where the last line of stderr may be a part of one.
    with suppress(ValueError, AttributeError):
        content: Any = json.loads(stdout)
        messages = [each["message"] for each in content.get("diagnostics") or ()]
        messages += [content.get("error"), content.get("reason")]
        text = next(filter(None, messages), text)
    return text.splitlines()[0].removeprefix("error: ")


def plan_peaks(comparison: PlannedComparison) -> dict[str, Peaks]:
    """By name the planned peaks of the candidates that promise memory of a GPU and have none, and
    of mode default under their engines. Those whose plan fails are empty.
    """
    needed: set[str] = set()
    for item in comparison.candidates:
        measures = set(item.resolved.promises)
        for stage in item.stages.values():
            measures |= stage.promises.keys()
        if item.resolved.device == "cpu" and measures & {GPU_MEMORY, GPU_MEMORY + BYTES}:
            needed |= {item.name, f"{BASELINE} {item.engine}"}
    return {item.name: _planned(item) for item in comparison.candidates if item.name in needed}


def _planned(item: ModeCandidate) -> Peaks:
    # The whole run: one that is cut may have no evaluation.
    args = item.args.with_sets(["device=auto", f"{AFTER}=null", f"{AT}=null"])
    command = _command("plan", args, f"--gpu={CARD}", f"--gpus={item.resolved.nproc}")
    result = subprocess.run(command, capture_output=True, text=True, env=_variables())
    if result.returncode:
        return {}
    content: Any = json.loads(result.stdout)
    if "engine" in content:  # one run
        return {None: content["device_peak_bytes"]["total"]}
    totals = {name: plan["device_peak_bytes"]["total"] for name, plan in content.items()}
    return {None: max(totals.values()), **totals}


def _variables() -> dict[str, str]:
    """The environment of a run: in a Slurm job the comparison is a generation; its runs are not."""
    variables = environment.variables().items()
    of_run = {name: text for name, text in variables if name not in JOB_VARIABLES}
    return {**of_run, "PYTHONPATH": environment.python_path()}


def _command(name: str, args: CliArgs, *more: str) -> list[str]:
    return [sys.executable, "-m", "launcher", name, *arguments(args), *more, "--json"]
