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
from gearshift.launcher.base.signals import handling, heeded, kill_children
from gearshift.launcher.compare import rows
from gearshift.launcher.compare.candidates import BASELINE, ModeCandidate, PlannedComparison
from gearshift.launcher.compare.promises import BYTES, CARD, GPU_MEMORY, check
from gearshift.launcher.compare.rows import ComparisonRow
from gearshift.launcher.config.command_line import arguments
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.schema import model_name
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.slurm.environment import JOB_VARIABLES

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
        broken = (
            item.kept is False and not item.planned for row in self.rows for item in row.promises
        )
        return not any(broken) and not any(
            row.error or (row.study and row.study.failed) for row in self.rows
        )


def run_all(comparison: PlannedComparison, report_line: Callable[[str], None]) -> ComparisonOutcome:
    """Run all candidates in turns; an interruption keeps what was measured so far.

    `report_line` gets a line before each run. Touches the disk.
    """
    ended: list[Ended] = [{} for _ in comparison.candidates]
    warnings: list[str] = []
    code = None
    peaks = dict[str, Peaks]()
    if (load := os.getloadavg()[0]) >= 1:
        warnings.append(
            f"other programs use about {load:.1f} cores: times and ratios are unreliable"
        )
    turns = list(comparison.turns)
    title = comparison.study.title

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt(
            exit_codes.INTERRUPTED if number == signal.SIGINT else exit_codes.RUN_AGAIN
        )

    try:
        with handling(heeded(), end):
            for at, (number, name) in enumerate(turns, start=1):
                item = comparison.candidates[number]
                runs = ended[number]
                # The rounds of a study are independent; a repeat is the same run again.
                if not title and any(isinstance(each, str) for each in runs.values()):
                    continue
                report_line(f"run {at} of {len(turns)}: {item.name}{title and f' {name}'}")
                folder = comparison.run_folder(number, name)
                runs[name] = error = (
                    run(item.args.with_sets(comparison.study.rounds[name]), folder) or folder
                )
                if isinstance(error, str):
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
            bases[item.engine] = group[0]
            base = None
        ours, theirs = (peaks.get(f"{mode} {item.engine}", {}) for mode in (item.mode, BASELINE))
        for row in group:
            promised, unpromised = item.promised(row.stage)
            planned = (ours[row.stage], theirs[None]) if row.stage in ours and theirs else None
            is_cut = bool(comparison.limits)
            study = comparison.study
            kept = check(promised, row, base, is_cut=is_cut, study=study, planned=planned)
            results.append(replace(row, promises=tuple(kept), unpromised=unpromised))
    return results


def _candidate_rows(
    comparison: PlannedComparison, item: ModeCandidate, runs: Ended, reference: ComparisonRow | None
) -> list[ComparisonRow]:
    """The row of a candidate, followed by one per stage in staged training."""
    study = comparison.study
    until = comparison.until
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
    known = dict[str, tuple[Path, rows.RunMeasurements | None]]()
    parts: list[ComparisonRow] = []
    try:
        for stage in (item.stages or (None,)) if folders else ():
            inner = {
                name: f if stage is None else RunReader(f).stages()[stage]
                for name, f in folders.items()
            }
            known = {name: (folder, rows.read(folder, until)) for name, folder in inner.items()}
            part = row if stage is None else replace(row, stage=stage, folders=())
            if measurements := [run for _, run in known.values() if run is not None]:
                parts.append(rows.measured(part, measurements, until is not None))
            else:
                parts.append(replace(part, error=error or "it took no step"))
        if parts:
            row = rows.staged(row, parts) if item.stages else parts.pop()
        if study.title:
            base = (reference.name, reference.study) if reference and reference.study else None
            row = replace(row, study=rows.figures(study, known, failed, base))
    except SettingsError as damaged:
        return [replace(row, error=damaged.diagnostics[0].message)]
    return [row, *parts]


def run(args: CliArgs, folder: Path) -> str | None:
    """Train with `args` into `folder` and wait for the end; gives the first line of the error.

    Deletes its checkpoints afterwards, which would fill the disk. Raises KeyboardInterrupt; nothing of
    the run is left then.
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
        for each in comparison.candidates:
            if (
                each.engine == item.engine
                and each.mode in (BASELINE, item.mode)
                and each.name not in planned
            ):
                planned[each.name] = _planned(each, comparison.limits)
    return planned


def _planned(item: ModeCandidate, limits: Sequence[str]) -> Peaks:
    args = replace(item.args, sets=[text for text in item.args.sets if text not in limits])
    machine = (f"--gpu={CARD}", f"--gpus={item.resolved.nproc}")
    command = _command("plan", args.with_sets(["device=auto"]), *machine)
    done = subprocess.run(command, capture_output=True, text=True, env=_variables())
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


def _command(name: str, args: CliArgs, *more: str) -> list[str]:
    return [sys.executable, "-m", "launcher", name, *arguments(args), *more, "--json"]
