"""A study: the runs of all candidates on folds of the data, with several seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import Diagnostic, SettingsError, counted, plain
from launcher.config import paths
from launcher.config.batching import ACCUMULATION
from launcher.config.folds import count_groups
from launcher.config.least_steps import FITTED
from launcher.config.provenance import FITTED_LAYERS, Resolved
from launcher.config.render import ORIGINS
from launcher.run_folder import lock
from launcher.run_folder.reader import RunReader
from models.catalog import is_custom
from training.storage import read_json

FOLD, SPLIT_SEED, SEED = "data.fold", "data.split_seed", "train.seed"
BY_GROUP = "groups"
_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
_FREE = (ACCUMULATION, "promise", "log.every", "train.preview")
"""Settings that change no result; compare sets the last two."""
_LEAST, _STEP = "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"


@dataclass(frozen=True)
class ComparisonRound:
    """One run of each candidate, on the same fold with the same seed."""

    name: str
    """The end of its run folders: `2`, or `fold2-seed1`."""
    fold: int | None = None
    seed: int | None = None
    """From 1."""
    sets: Sequence[str] = ()
    """What distinguishes it, as values of --set."""

    @property
    def title(self) -> str:
        """`fold 2 seed 1`."""
        parts = {"fold": self.fold, "seed": self.seed}
        return " ".join(f"{name} {number}" for name, number in parts.items() if number is not None)


@dataclass(frozen=True)
class Study:
    """Which folds and seeds each candidate runs on."""

    folds: int | None
    by_group: bool
    """Each fold is one group."""
    seeds: int | None
    split_seed: int | None
    """None: the task has a split of its own."""
    seed: int
    """The first seed."""
    eval_share: float
    """Of mode default, for all: another share would be another split."""

    @property
    def share(self) -> float:
        """The part of the data that validates, if there are folds: see statistics.estimate."""
        return 1 / self.folds if self.folds else 0.0

    @property
    def unit(self) -> str:
        """The unit that is independent: a fold, or a seed."""
        return "fold" if self.folds else "seed"

    @property
    def title(self) -> str:
        """`5 folds × 2 seeds`."""
        counts = {"group" if self.by_group else "fold": self.folds, "seed": self.seeds}
        return " × ".join(counted(count, noun) for noun, count in counts.items() if count)

    @property
    def rounds(self) -> list[ComparisonRound]:
        """All rounds, a seed after the other."""
        folds = range(1, self.folds + 1) if self.folds else (None,)
        seeds = range(1, self.seeds + 1) if self.seeds else (None,)
        return [self._round(fold, seed) for seed, fold in product(seeds, folds)]

    def _round(self, fold: int | None, seed: int | None) -> ComparisonRound:
        sets = [f"{SEED}={self.seed + (seed or 1) - 1}"]
        if self.split_seed is not None:
            sets += [f"{SPLIT_SEED}={self.split_seed}", f"eval.share={self.eval_share}"]
        if fold is not None:
            sets.append(f"{FOLD}={fold}/{BY_GROUP if self.by_group else self.folds}")
        numbers = {"fold": fold, "seed": seed}
        name = "-".join(f"{key}{number}" for key, number in numbers.items() if number is not None)
        return ComparisonRound(name, fold, seed, sets)


def plan(folds: str | int | None, seeds: int | None, resolved: Resolved) -> Study:
    """The study of --folds and --seeds; `resolved`: the settings without them.

    Reads the data if there are folds. Raises SettingsError.
    """
    seed, split_seed = (resolved.values[key].value for key in (SEED, SPLIT_SEED))
    if split_seed is None and (folds is not None or _has_groups(resolved)):
        split_seed = seed
    count = None if folds is None else _count(folds, resolved)
    share = resolved.settings.eval.share
    return Study(count, folds == BY_GROUP, seeds, split_seed, seed, share)


def _has_groups(resolved: Resolved) -> bool:
    """Whether the run reads the seed of a split; a custom task may have a split of its own."""
    if not is_custom(resolved.settings.model.family):
        return True
    try:
        return count_groups(resolved) > 0
    except SettingsError:
        return False


def check_folds(study: Study, name: str, resolved: Resolved) -> None:
    """Check that a candidate with data settings of its own has the folds of the study.

    Reads the data. Raises SettingsError.
    """
    groups, folds = count_groups(resolved), study.folds or 0
    if groups < folds or (study.by_group and groups != folds):
        raise SettingsError.of(
            f"{counted(folds, 'fold')} need as many groups, and {name} uses {groups} of the data",
            where="the command line: --folds",
            allowed="modes that use the same groups",
            fix="--set data.fraction=1",
        )


def _count(folds: str | int, resolved: Resolved) -> int:
    setting, groups = resolved.values[FOLD], count_groups(resolved)
    if setting.is_set_by_user:
        message = f"--folds sets {FOLD}, which is {plain(setting.value)} already"
        fix = f"leave out --folds or {FOLD}"
        raise SettingsError.of(message, key=FOLD, where=setting.origin.where, fix=fix)
    if isinstance(folds, int) and folds > groups:
        raise SettingsError.of(
            f"--folds {folds} is more than there are groups beside those for test: {groups}",
            value=str(folds),
            where=f"the command line: --folds {folds}",
            allowed=f"2 to {groups}, or {BY_GROUP}",
            fix=f"--folds {groups}",
        )
    return groups if isinstance(folds, str) else folds


@dataclass(frozen=True)
class ArrayTask:
    """A task of a Slurm array, which runs some of the rounds."""

    position: int
    """From 0."""
    count: int

    def share(self, rounds: Sequence[ComparisonRound]) -> Sequence[ComparisonRound]:
        """Its rounds: whole ones, so that the candidates of a round run on one machine."""
        return rounds[self.position :: self.count]


def array_task(variables: Mapping[str, str]) -> ArrayTask | None:
    """The task of this process; None: it is none of several. Raises SettingsError."""
    number, size = (variables.get(name, "") for name in _ARRAY)
    if not number or size in ("", "1"):
        return None
    least, step = int(variables.get(_LEAST, "0")), int(variables.get(_STEP, "1"))
    position, rest = divmod(int(number) - least, step)
    if rest or not 0 <= position < int(size):
        raise SettingsError.of(
            f"the array of task {number} has gaps: its {size} tasks cannot share the runs",
            where=f"the environment: {_ARRAY[0]}={number}",
            allowed="a range of tasks without gaps; finished runs are not run again",
            fix=f"sbatch --array=0-{int(size) - 1}",
        )
    return ArrayTask(position, int(size))


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` is complete. Reads the disk. Raises SettingsError."""
    result = RunReader(folder).result()
    return result is not None and result["status"] == "completed"


def failure_file(folder: Path) -> Path:
    """The file with the error of a run, beside its folder, which a failed start removes."""
    return folder.with_name(f"{folder.name}.failed")


def error_of(folder: Path) -> str | None:
    """Why the run of `folder` failed; None: it did not. Reads the disk."""
    path = failure_file(folder)
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def check_idle(folder: Path) -> None:
    """Check that no process trains in `folder`. Reads the disk. Raises SettingsError."""
    if lock.is_held(folder):
        message = f"another process trains in {folder}"
        allowed = "a study that runs once; the tasks of one Slurm array share its runs"
        raise SettingsError.of(message, value=str(folder), where="--out", allowed=allowed)


def parts(folder: Path) -> list[Path]:
    """The run in `folder`, or the runs of its stages. Reads the disk. Raises SettingsError."""
    stages = (RunReader(folder).result() or {}).get("stages") or []
    return [folder / stage["folder"] for stage in stages] or [folder]


def differences(folder: Path, resolved: Resolved, sets: Sequence[str]) -> Iterator[Diagnostic]:
    """A diagnostic for each setting of the run in `folder` that is another one now.

    `resolved`: the settings now, of a round with other `sets`. What Gearshift adapted to a machine
    may differ, and where an earlier stage of the run is; what the run fitted to its data is
    compared as it was before. Reads the disk.
    """
    try:
        origins: Mapping[str, Any] = read_json(folder / ORIGINS)
    except (OSError, ValueError):
        return
    values = paths.kept_values(resolved.values)
    of_round = dict(text.split("=", 1) for text in sets)
    for key, entry in origins.items():
        if entry["origin"].startswith(FITTED):
            entry = entry["replaced"][0]
        value, setting = entry["value"], resolved.values.get(key)
        is_adapted = entry["layer"] in FITTED_LAYERS or (
            setting is not None and setting.origin.layer in FITTED_LAYERS
        )
        now = of_round.get(key, json.loads(json.dumps(values.get(key))))
        is_of_stage = isinstance(value, str) and value.startswith(f"{folder.resolve().parent}/")
        if is_adapted or is_of_stage or key in _FREE or (key in of_round and str(value) == now):
            continue
        if value != now:
            yield Diagnostic(
                f"{key} is {plain(now)}, but the finished run in {folder} has {plain(value)}",
                key=key,
                where="--out with the runs of an earlier start",
                allowed=f"{plain(value)}, as in that run; or another --out",
            )
