"""The runs of a study: those that are left, and how long they take."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import fmean

from launcher.base.diagnostics import SettingsError
from launcher.base.ending import temporary_folder
from launcher.compare import measurements, runner
from launcher.compare import study as studies
from launcher.compare.candidates import RUNS, ComparisonLimits, ModeCandidate, PlannedComparison
from launcher.compare.runner import CandidateRuns, Load, MeasuredRun, PrintLine
from launcher.compare.study import ComparisonRound
from launcher.run_folder.reader import RunReader
from training.logging.quantities import duration

MEASURED_STEPS = 4
"""Steps of a run that predict its time; the first one warms up and does not count."""
RunNumber = tuple[int, ComparisonRound]
"""The number of a candidate, and a round."""


def run_in_turns(
    comparison: PlannedComparison,
    candidates: Sequence[CandidateRuns],
    loads: list[Load],
    report_line: PrintLine,
) -> None:
    """Run what this process has to run and no earlier start has finished.

    Notes all finished and failed runs in `candidates`, also after an interruption. Touches the
    disk.
    """
    (comparison.folder / RUNS).mkdir(parents=True, exist_ok=True)
    _read_finished(comparison, candidates)
    left = [
        (number, entry)
        for number, entry in comparison.turns
        if comparison.run_folder(number, entry) not in candidates[number].runs
    ]
    try:
        times = _seconds(comparison, candidates, {number for number, _ in left})
        report_line(
            "; ".join(_announcement(comparison, candidates, _about(times, left), len(left)))
        )
        for at, (number, entry) in enumerate(left):
            about = "".join(f"; {text} left" for text in _about(times, left[at:]))
            name = f"{comparison.candidates[number].name} {entry.title}"
            report_line(f"run {at + 1} of {len(left)}: {name}{about}")
            finished = _start(comparison, number, entry)
            loads.append(finished.load)
            if finished.error is not None:
                report_line(f"  failed: {finished.error}")
                continue
            measured = times[number] if candidates[number].runs else []  # or else a prediction
            times[number] = [*measured, finished.seconds]
            candidates[number].runs.append(finished.folder)
    finally:
        _read_finished(comparison, candidates)
        if comparison.task is None:
            with suppress(OSError):  # not empty
                (comparison.folder / RUNS).rmdir()
                comparison.folder.rmdir()


def count_left(comparison: PlannedComparison) -> int:
    """How many runs have neither finished nor failed, of all tasks. Reads the disk."""
    candidates = [CandidateRuns() for _ in comparison.candidates]
    _read_finished(comparison, candidates)
    ended = sum(len(progress.runs) + len(progress.failed) for progress in candidates)
    return len(candidates) * len(comparison.rounds) - ended


def _read_finished(comparison: PlannedComparison, candidates: Sequence[CandidateRuns]) -> None:
    """Note the runs that are complete or have failed. Raises SettingsError if one is damaged."""
    for number, progress in enumerate(candidates):
        progress.runs, progress.failed = [], {}
        for entry in comparison.rounds:
            folder = comparison.run_folder(number, entry)
            if studies.is_finished(folder):
                progress.runs.append(folder)
            elif (error := studies.error_of(folder)) is not None:
                progress.failed[entry.name] = error


def _start(comparison: PlannedComparison, number: int, entry: ComparisonRound) -> MeasuredRun:
    """One run, which replaces what a killed start has left of it."""
    folder = comparison.run_folder(number, entry)
    marker = studies.failure_file(folder)
    marker.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    finished = runner.run(comparison.candidates[number].args.with_sets(entry.sets), folder)
    if finished.error is not None:
        marker.write_text(f"{finished.error}\n", encoding="utf-8")
    return finished


def _seconds(
    comparison: PlannedComparison, candidates: Sequence[CandidateRuns], wanted: Iterable[int]
) -> dict[int, list[float]]:
    """What the finished runs of each of the `wanted` candidates took, or else a prediction."""
    return {
        number: [(RunReader(folder).result() or {})["wall_s"] for folder in candidates[number].runs]
        or _predicted(comparison.candidates[number], comparison.limits)
        for number in wanted
    }


def _about(times: Mapping[int, Sequence[float]], left: Sequence[RunNumber]) -> list[str]:
    """`about 5m00s`, for the runs that are left; empty: unknown."""
    known = [fmean(times[number]) for number, _ in left if times[number]]
    return [f"about {duration(sum(known))}"] if known and len(known) == len(left) else []


def _announcement(
    comparison: PlannedComparison,
    candidates: Sequence[CandidateRuns],
    about: Sequence[str],
    left: int,
) -> list[str]:
    """How many runs there are, how many of them are left, and how long they take."""
    finished, task = sum(len(progress.runs) for progress in candidates), comparison.task
    parts = [comparison.sentence]
    parts += [f"{finished} finished earlier"] if finished else []
    parts += [f"task {task.position + 1} of {task.count} has {left}"] if task else []
    return [*parts, *about]


def _predicted(item: ModeCandidate, limits: ComparisonLimits) -> list[float]:
    """The seconds of a run, from its first steps here, in a temporary folder; empty: they failed.

    A run with `--until` may end earlier.
    """
    with temporary_folder("gearshift-measure-") as folder:
        ended = runner.run(item.args.with_sets(measured_sets(limits.steps)), folder / "run")
        try:
            runs = [measurements.read(part) for part in studies.parts(ended.folder)]
        except SettingsError:
            return []
    seconds = ended.seconds
    for measured in filter(None, runs):
        whole, taken = measured.result["estimate"], len(measured.steps)
        steps = limits.steps or (limits.epochs or 0) * measured.plan["steps_per_epoch"]
        if limits.is_cut:
            seconds += max(steps - taken, 0) * measured.mean_s
        elif whole is not None:
            seconds += whole["total_s"] - measured.result["wall_s"]
    return [seconds] if ended.error is None else []


def measured_sets(steps: int | None) -> list[str]:
    """What ends a run of `steps` after a few of them, as values of --set; None: a long run."""
    is_short = steps is not None and steps <= MEASURED_STEPS
    return ["track=[]", *([] if is_short else [f"stop.after={MEASURED_STEPS}"])]
