"""What the runs of a study show: means of metrics, paired differences, and promises of accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import isfinite, nan
from pathlib import Path
from statistics import fmean
from typing import Any

from launcher.compare import statistics
from launcher.compare.promises import INVERTED, PromiseResult
from launcher.compare.statistics import Estimate
from launcher.compare.study import Study, parts
from launcher.run_folder.reader import RunReader
from training.callbacks.base import TEST
from training.logging.quantities import counted, real


@dataclass(frozen=True)
class MetricValues:
    """A metric of one candidate over its finished runs."""

    estimate: Estimate | None
    """Over folds, each the mean of its seeds, or over seeds; None: no run has a value."""
    values: Mapping[str, float]
    """By the name of the round."""
    lacking: Sequence[str]
    """Finished rounds without a value: a fold of one class, for example."""


@dataclass(frozen=True)
class StudyFigures:
    """What a study shows of one candidate."""

    metric: str | None
    """The goal of the family; None: no evaluation gave it a value."""
    less_is_better: bool
    planned: int
    """Runs of the candidate in the whole study."""
    finished: int
    failed: Mapping[str, str]
    """Errors by the name of the round."""
    groups: Mapping[str, str | None] = field(default_factory=dict)
    """Digests of the validation groups by the name of the round; None: unknown."""
    metrics: Mapping[str, MetricValues] = field(default_factory=dict)
    """Of the evaluation with the best value of the goal; of the last one if no value is finite."""
    reference: str | None = None
    """The candidate that it is compared with; None: it is the reference itself."""
    differences: Mapping[str, Estimate] = field(default_factory=dict)
    """This candidate minus the reference, on the same folds and seeds, by metric."""
    sentence: str | None = None
    """Whether the difference of the goal's metric is larger than the noise."""

    @property
    def goal(self) -> MetricValues:
        """The goal's metric."""
        return self.metrics.get(self.metric or "", MetricValues(None, {}, ()))

    @property
    def is_partial(self) -> bool:
        """Whether the means are those of fewer runs than planned."""
        return len(self.goal.values) < self.planned

    def notes(self, name: str) -> Iterator[str]:
        """What is missing of candidate `name`, a line each."""
        for entry, error in self.failed.items():
            yield f"† {name} {entry} failed: {error}"
        if self.goal.lacking:
            yield f"† {name}: no {self.metric} of {', '.join(self.goal.lacking)}"
        if self.is_partial:
            yield f"† {name}: {len(self.goal.values)} of {counted(self.planned, 'run')}"


def figures(study: Study, runs: Mapping[str, Path], failed: Mapping[str, str]) -> StudyFigures:
    """The figures of one candidate, from the folders of its finished runs by round.

    Reads the disk. Raises SettingsError if a file is damaged.
    """
    evaluated = {name: _evaluation(folder) for name, folder in runs.items()}
    metrics = {}
    for metric in dict.fromkeys(metric for found, _ in evaluated.values() for metric in found):
        values = {
            name: found[metric]
            for name, (found, _) in evaluated.items()
            if isfinite(found.get(metric, nan))
        }
        lacking = [name for name in runs if name not in values]
        metrics[metric] = MetricValues(_estimate(study, values), values, lacking)
    best = next((best for _, best in evaluated.values() if best), None)
    goal, less = (best["metric"], best["direction"] == "min") if best else (None, False)
    groups = {name: _validation_groups(folder) for name, folder in runs.items()}
    return StudyFigures(goal, less, len(study.rounds), len(runs), failed, groups, metrics)


def against(
    study: Study, name: str, row: StudyFigures, other: str, base: StudyFigures
) -> StudyFigures:
    """`row` of candidate `name` with its differences from `base` of candidate `other`."""
    differences = {}
    for metric in (metric for metric in row.metrics if metric in base.metrics):
        ours, theirs = row.metrics[metric].values, base.metrics[metric].values
        paired = _estimate(study, {at: ours[at] - theirs[at] for at in ours if at in theirs})
        if paired is not None:
            differences[metric] = paired
    sentence = None
    if (paired := differences.get(row.metric or "")) is not None:
        side = "lower" if paired.mean < 0 else "higher"
        sentence = f"{row.metric} of {name} is {real(abs(paired.mean))} {side} than of {other}: "
        sentence += _claim(study, paired) + f"; {_OTHER}" * _differ(row, base)
    return replace(row, reference=other, differences=differences, sentence=sentence)


_OTHER = "they validate on different groups of the data"


def _differ(row: StudyFigures, base: StudyFigures) -> bool:
    """Whether two candidates validate on different groups in some round."""
    return any(row.groups[name] != base.groups[name] for name in row.groups if name in base.groups)


def _claim(study: Study, paired: Estimate) -> str:
    if paired.interval is None:
        return f"one {study.unit} does not show the noise"
    answer = "larger" if paired.is_larger_than_noise else "not larger"
    over = counted(paired.count, study.unit)
    return f"{answer} than the noise ({interval(paired)}, 95% interval over {over})"


def judged(
    study: Study, item: PromiseResult, row: StudyFigures, base: StudyFigures
) -> PromiseResult:
    """The promise `item`; one of quality by the interval over folds or seeds.

    Kept if the interval is inside its bounds, broken if it is outside. A failed run, or one without
    a value, leaves it not measured: the other runs are a selection.
    """
    if item.name != INVERTED or item.measured is None:
        return item
    titles = {entry.name: entry.title for entry in study.rounds}
    for name in (*row.failed, *base.failed):
        return replace(item, measured=None, kept=None, why=f"the run of {titles[name]} failed")
    for name in (*row.goal.lacking, *base.goal.lacking):
        why = f"{row.metric} has no value on {titles[name]}"
        return replace(item, measured=None, kept=None, why=why)
    if _differ(row, base):
        return replace(item, measured=None, kept=None, why=_OTHER)
    names = [name for name in titles if name in row.goal.values and name in base.goal.values]
    ours, theirs = ([each.goal.values[name] for name in names] for each in (row, base))
    if min(*ours, *theirs) < 0 or not (names and sum(ours) and sum(theirs)):
        return replace(item, measured=None, kept=None, why="no ratio is possible")
    less = row.less_is_better
    sums = (sum(theirs), sum(ours)) if less else (sum(ours), sum(theirs))
    answers: list[bool | None] = []
    further: list[int | None] = []
    for amounts in statistics.margins(item.promised, ours, theirs, less=less):
        units = _units(study, dict(zip(names, amounts, strict=True)))
        answers.append(statistics.judge(units, study.share))
        if answers[-1] is None:
            further.append(statistics.further_seeds(units, study.share))
    kept = False if False in answers else None if None in answers else True
    undecided = _undecided(study, further, len(names)) if kept is None else None
    return replace(item, measured=sums[0] / sums[1], kept=kept, why=undecided)


def _undecided(study: Study, further: Sequence[int | None], runs: int) -> str:
    """`not decided: 3 more seeds`."""
    if runs < 2:
        return "not decided: one run has no interval; use --seeds 3"
    known = [number for number in further if number is not None]
    if len(known) < len(further):
        other = "more folds or data" if study.folds else "more data"
        return f"not decided: over {statistics.MOST_SEEDS} more seeds, or {other}"
    least = "at least " if study.folds and not (study.seeds or 1) > 1 else ""
    return f"not decided: {least}{counted(max(known), 'more seed')}"


def interval(estimate: Estimate) -> str:
    """`0.58 to 0.64`."""
    return " to ".join(real(end) for end in estimate.interval or ())


def _estimate(study: Study, values: Mapping[str, float]) -> Estimate | None:
    means = [fmean(unit) for unit in _units(study, values)]
    return statistics.estimate(means, study.share) if means else None


def _units(study: Study, values: Mapping[str, float]) -> list[list[float]]:
    """The values of the seeds of each fold; without folds, each value is by itself."""
    units: dict[int | None, list[float]] = {}
    for entry in study.rounds:
        if entry.name in values:
            unit = entry.fold if study.folds else entry.seed
            units.setdefault(unit, []).append(values[entry.name])
    return list(units.values())


def _validation_groups(folder: Path) -> str | None:
    """A digest of the groups in the val split, as the task saved it."""
    from models.common.split import SPLIT_FILE  # imports numpy

    path = parts(folder)[-1] / SPLIT_FILE
    groups = (RunReader(path.parent).object(path.name) or {}).get("val")
    return None if groups is None else sha256(repr(groups).encode()).hexdigest()[:16]


def _evaluation(folder: Path) -> tuple[dict[str, float], Mapping[str, Any] | None]:
    """The metrics of the best evaluation, or else of the last one, and the best of result.json."""
    folder = parts(folder)[-1]
    best, metrics = (RunReader(folder).result() or {}).get("best"), {}
    for line in RunReader(folder).events():
        facts = line["facts"]
        if line["kind"] != "evaluated" or facts.get("split") == TEST:
            continue
        metrics = {name: float(value) for name, value in facts["metrics"].items()}
        if best is not None and facts["step"] == best["step"]:
            break
    if best is not None:
        metrics[best["metric"]] = float(best["value"])
    return metrics, best
