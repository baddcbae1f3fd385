"""A study: the comparison on folds of the data and with several seeds, as means with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import inf, sqrt
from statistics import fmean, stdev

from gearshift.launcher.base.diagnostics import SettingsError, counted, plain
from gearshift.launcher.base.temporary import temporary_folder
from gearshift.launcher.config.check import SPLIT_HINT
from gearshift.launcher.config.errors import about_data
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.config.schema import task_with_data
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.models.base import DataError
from gearshift.models.catalog import is_custom
from gearshift.training.callbacks.base import Facts

FOLD = "data.fold"
SPLIT_SEED = "data.split_seed"
SEED = "train.seed"
BY_GROUP = "groups"
CONFIDENCE = 0.95
_FIRST_FOLD = "1/groups"


@dataclass(frozen=True)
class Study:
    """The rounds of runs on folds and seeds; without both they are repeats of one run."""

    rounds: Mapping[str, Sequence[str]]
    """By name, `fold2-seed1` or `2`, the settings of a round as KEY=VALUE; a seed after the other.
    What is independent in a study comes first in the name: its fold, or without folds its seed.
    """
    folds: int | None = None
    seeds: int | None = None

    @property
    def title(self) -> str:
        """`5 folds × 2 seeds`; empty: repeats."""
        counts = {"fold": self.folds, "seed": self.seeds}
        return " × ".join(counted(count, noun) for noun, count in counts.items() if count)

    def mean(self, values: Mapping[str, float]) -> Estimate | None:
        """Of values by round over folds, each the mean of its seeds, or over seeds.

        None: no value.
        """
        units = defaultdict[str, list[float]](list)
        for name in self.rounds:
            if name in values:
                units[name.partition("-")[0]].append(values[name])
        means = list(map(fmean, units.values()))
        return estimate(means, 1 / self.folds if self.folds else 0.0) if means else None


def plan(folds: str | int | None, seeds: int | None, resolved: Resolved) -> Study:
    """The study of --folds and --seeds; `resolved`: mode default without them.

    Reads the data if there are folds. Raises SettingsError.
    """
    fold = resolved.values[FOLD]
    seed = resolved.values[SEED]
    split_seed = resolved.values[SPLIT_SEED].value
    if split_seed is None:
        split_seed = seed.value
    # Of all modes alike, with the share of mode default.
    shared = [f"{SPLIT_SEED}={split_seed}", f"eval.share={resolved.settings.eval.share}"]
    count = 0
    if folds is not None:
        groups = count_groups(resolved)
        count = groups if folds == BY_GROUP else int(folds)
        if count > groups:
            raise SettingsError.of(
                f"--folds {folds} is more than there are groups beside those for test: {groups}",
                value=str(folds),
                where=f"the command line: --folds {folds}",
                fix=f"--folds {groups}",
            )
        if FOLD in resolved.keys.decided:
            raise SettingsError.of(
                f"--folds sets {FOLD}, which is {plain(fold.value)} already",
                key=FOLD,
                where=fold.origin.where,
                fix="",
                replaces=("--folds",),
            )
    elif is_custom(resolved.settings.model.family):
        try:
            count_groups(resolved)
        except SettingsError:
            shared = []  # the task has a split of its own

    rounds = {}
    for seed_number, fold_number in product(range(seeds or 1), range(count or 1)):
        names = []
        sets = [f"{SEED}={seed.value + seed_number}", *shared]
        if count:
            names.append(f"fold{fold_number + 1}")
            sets.append(f"{FOLD}={fold_number + 1}/{folds}")
        if seeds:
            names.append(f"seed{seed_number + 1}")
        rounds["-".join(names)] = sets
    return Study(rounds, count or None, seeds)


def count_groups(resolved: Resolved) -> int:
    """How many folds `k/groups` there are: groups that the run does not set aside for test.

    Imports torch, and reads the data as `data check` does; what the task saves is temporary.
    Raises SettingsError as the start of a run of such a fold.
    """
    from gearshift.models.common.split import SPLIT_FILE  # imports numpy

    data = resolved.settings.data.model_copy(update={"fold": _FIRST_FOLD})
    settings = resolved.settings.model_copy(update={"data": data})
    with temporary_folder("gearshift-folds-") as folder:
        try:
            task_with_data(settings, folder)
        except DataError as error:
            raise about_data(error) from error
        split = RunReader(folder).object(SPLIT_FILE) or {}
    if split.get("fold") != _FIRST_FOLD:
        raise SettingsError.of(
            f"{settings.model.family} cannot be split into folds: it does not read data.fold",
            key=FOLD,
            fix="",
            replaces=("--folds",),
            hint=SPLIT_HINT,
        )
    return len(split["train"]) + len(split["val"])


@dataclass(frozen=True)
class Estimate:
    """A mean over folds or seeds."""

    count: int
    mean: float
    deviation: float | None
    """The standard deviation of one fold or seed; None: there is only one."""
    interval: tuple[float, float] | None
    """Of the mean, at CONFIDENCE."""

    @property
    def is_larger_than_noise(self) -> bool:
        """Whether the interval excludes 0."""
        low, high = self.interval or (0, 0)
        return low > 0 or high < 0


def estimate(values: Sequence[float], share: float = 0.0) -> Estimate:
    """The mean of one value per fold or seed, with its interval.

    `share`: the part of the data that validates, 1/K for K folds; 0 for seeds, which are
    independent. Training sets of folds overlap, so their values are correlated, and the variance of
    the mean is (1/n + share / (1 - share)) S² with n - 1 degrees of freedom. Exact for normal
    values with correlation `share`. Source: Nadeau and Bengio, Inference for the Generalization
    Error, Machine Learning 52, 2003, section 3.3.
    """
    mean = fmean(values)
    count = len(values)
    if count < 2:
        return Estimate(count, mean, None, None)
    from scipy.stats import t  # a second, for studies only

    deviation = stdev(values)
    # Two sides: half of the rest is above the interval.
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, count - 1))
    half = quantile * deviation
    half *= sqrt(1 / count + share / (1 - share))
    return Estimate(count, mean, deviation, (mean - half, mean + half))


@dataclass(frozen=True)
class StudyFigures:
    """What a study shows of one candidate; all mappings are by round.

    `metric` is the goal of the family, None without a value: its `values` are the best ones, and
    `estimate` their mean; `failed` has errors; `groups` has digests of the validation groups, None
    where unknown. `difference`: this candidate minus the `reference`, on the same folds and seeds.
    """

    metric: str | None
    less_is_better: bool
    planned: int
    finished: int
    failed: Mapping[str, str]
    groups: Mapping[str, str | None] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    estimate: Estimate | None = None
    reference: str | None = None
    difference: Estimate | None = None

    @property
    def is_partial(self) -> bool:
        """Whether the means are those of fewer runs than planned."""
        return len(self.values) < self.planned


def decide(
    study: Study, bounds: Facts, row: StudyFigures, base: StudyFigures
) -> tuple[float | None, bool | None, str | None]:
    """The ratio of the goal's means, whether a promise of it is kept, and why it is open.

    Kept if the interval is inside its bounds, broken if it is outside. A failed run, or one without
    a value, leaves it not measured: the other runs are a selection.
    """
    names = [name for name in row.values if name in base.values]
    values = [row.values[name] for name in names]
    base_values = [base.values[name] for name in names]
    why = None
    failed = [*row.failed, *base.failed]
    if failed:
        why = f"the run of {failed[0]} failed"
    elif row.is_partial or base.is_partial:
        why = f"{row.metric} has no value in a run"
    elif any(row.groups[name] != base.groups[name] for name in names):
        why = "they validate on different groups of the data"
    elif 0 in (sum(values), sum(base_values)) or min(values + base_values) < 0:
        why = "no ratio is possible"
    if why:
        return None, None, why
    if row.less_is_better:
        values, base_values = base_values, values

    # A bound r of a ratio a / b becomes the difference a - r b, which has an interval where a ratio
    # has none; its ends are above 0 inside of the bound. Source: Fieller, Some Problems in Interval
    # Estimation, Journal of the Royal Statistical Society B 16, 1954.
    lows = []
    highs = []
    for side, sign in (("at_least", 1), ("at_most", -1)):
        bound = bounds.get(side)
        if bound is None:
            continue
        differences = {
            name: sign * (value - bound * base_value)
            for name, value, base_value in zip(names, values, base_values, strict=True)
        }
        mean = study.mean(differences)
        low, high = (mean and mean.interval) or (-inf, inf)
        lows.append(low)
        highs.append(high)
    is_outside = min(highs, default=0) < 0
    ratio = sum(values) / sum(base_values)
    if is_outside or min(lows, default=0) >= 0:
        return ratio, not is_outside, None
    return ratio, None, "not decided"
