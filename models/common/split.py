"""The split of data by group: which groups train, validate and test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from gearshift.models.base import Context, DataError, Groups, SplitName
from gearshift.models.common.config import parse_fold
from gearshift.models.common.data_reports import library_errors

SPLIT_FILE = "split.json"
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class SplitRule:
    """All that a split follows from, except for the groups."""

    share: float
    """Share of the used groups for val, and as much for test."""
    seed: int = 0
    fraction: float = 1.0
    """Share of the groups to use."""
    fold: str | None = None
    """See models/common/config.py: Fold."""
    earlier: Mapping[str, SplitName] | None = None
    """See Context.earlier_splits."""

    @classmethod
    def of(cls, data: Any, context: Context) -> SplitRule:
        """The rule of a run; `data` is the section of settings, which may lack `fraction`."""
        return cls(
            context.eval_share,
            seed=context.seed if data.split_seed is None else data.split_seed,
            fraction=getattr(data, "fraction", 1.0),
            fold=data.fold,
            earlier=context.earlier_splits,
        )

    def refuse_fold(self, why: str, fix: str = "", hint: str = "remove data.fold") -> None:
        """Raise DataError if there is a fold: the data is not split by group."""
        if self.fold is not None:
            raise DataError(
                f"data.fold {self.fold} cannot be cut: {why}",
                where="data.fold",
                allowed="data that is split by one kind of group",
                fix=fix,
                hint=hint,
            )


def split_groups(groups: Iterable[str], rule: SplitRule, noun: str) -> Groups:
    """Each split's groups, sorted: a pure function of the set of groups and the rule.

    Shares are rounded down, to one group at least. Groups with an `earlier` split stay in it, and
    the others are drawn. A fold has the test groups of the rule without one; the other groups, in
    the order that the seed draws, are cut into parts of nearly equal size, of which one validates.
    Raises DataError if a split would be empty; `noun` is the plural of a group, such as "patients".
    """
    ids = sorted(set(groups))
    order = np.random.default_rng(rule.seed).permutation(len(ids))
    num_used = max(1, round(rule.fraction * len(ids)))
    selection = [ids[i] for i in order[:num_used]]
    earlier = rule.earlier or {}
    fresh = [group for group in selection if group not in earlier]
    size = held_out(len(fresh), rule.share)
    splits: dict[SplitName, list[str]] = {
        "train": fresh[2 * size :],
        "val": fresh[:size],
        "test": fresh[size : 2 * size],
    }
    for group in selection:
        if group in earlier:
            splits[earlier[group]].append(group)
    empty = [name for name in SPLITS if not splits[name]]
    if empty:
        raise DataError(
            f"{' and '.join(empty)} would be empty: {len(fresh)} of {len(selection)} {noun} are "
            f"new, of which eval.share={rule.share:g} takes {size} each for val and test",
            where="eval.share, data.fraction, data.path",
            allowed="at least one group each for train, val and test",
            fix="--set eval.share=0.1" if len(fresh) > 2 else "",
            hint=f"add data: three splits need 3 {noun}",
        )
    if rule.fold is not None and earlier.keys().isdisjoint(ids):
        others = splits["val"] + splits["train"]
        part = _part(rule.fold, len(others), noun)
        splits["val"] = others[part]
        splits["train"] = others[: part.start] + others[part.stop :]
    return {name: sorted(groups) for name, groups in splits.items()}


def held_out(count: int, share: float) -> int:
    """How many of `count` groups validate, and as many test: one at least."""
    return max(1, int(share * count + 1e-9))  # 0.29 * 100 is 28.999999999999996


def _part(fold: str, count: int, noun: str) -> slice:
    """Which of `count` groups validate in a fold. Raises DataError for more folds than groups."""
    number, parts = parse_fold(fold)
    if max(number, parts or 0) > count:
        raise DataError(
            f"data.fold {fold}: {count} {noun} are not for test",
            where="data.fold, eval.share, data.fraction, data.path",
            allowed=f"at most {count} folds",
            fix=f"--set data.fold={min(number, count)}/{count if parts else 'groups'}",
        )
    parts = parts or count
    return slice(count * (number - 1) // parts, count * number // parts)


def save_split(splits: Groups, context: Context, rule: SplitRule = SplitRule(0.0)) -> None:
    """Write the split, and what of `rule` a later start needs, or check that it is there.

    Raises DataError if the run folder holds another split, because the data has changed; where the
    context resets the data, the saved split is replaced instead. Without a folder: does nothing.
    """
    if context.folder is None:
        return
    before = _saved(context.folder)
    groups = {name: list(splits[name]) for name in SPLITS}
    if before is not None and before.groups == groups:
        return
    if before is not None and not context.reset_data:
        raise DataError(
            "the data has changed since this run started: its groups split differently",
            where="data.path",
            allowed="the data, eval.share, seed and data.fold of the first start",
            fix="--reset data",
            hint="start a new run with  --out DIR",
        )
    saved: dict[str, Any] = {}
    if rule.fold is not None:
        saved["fold"] = rule.fold
    if rule.earlier:
        present = set().union(*splits.values())
        saved["earlier"] = {group: side for group, side in rule.earlier.items() if group in present}
    saved["counts"] = {name: len(splits[name]) for name in SPLITS}
    context.save(SPLIT_FILE, json.dumps({**saved, **groups}, indent=1))


def load_sides(folder: Path, *, only_earlier: bool = False) -> dict[str, SplitName]:
    """The split of each group that is saved in `folder`; empty if none is. Reads the disk.

    `only_earlier`: of the groups whose split was fixed before the split was drawn.
    """
    saved = _saved(folder) or _SavedSplit()
    if only_earlier:
        return saved.earlier
    return {group: name for name, groups in saved.groups.items() for group in groups}


_OF_SPLIT = ("eval.share", "train.seed", "data.split_seed", "data.fold", "data.split")
"""Settings by which groups are drawn; if one of them changes, all groups are drawn again."""


def earlier_sides(
    folder: Path, settings: Mapping[str, Any], before: Mapping[str, Any] | None
) -> dict[str, SplitName]:
    """The splits of groups that the data of an earlier start had, which they keep. Reads the disk.

    Of the run in `folder`, if its data is reset and its groups are drawn as `before`, by the
    settings of its checkpoint; or of the run whose weights a new run starts with: none of its
    training groups may validate.
    """
    start = settings.get("model.start")
    if start and not (folder / SPLIT_FILE).exists() and settings.get("data.fold") is None:
        path = Path(start).expanduser()  # a run, or a checkpoint or a file in it
        return next(filter(None, map(load_sides, (path, *path.parents[:3]))), {})
    earlier = load_sides(folder, only_earlier=True)
    if before is not None and all(before.get(key) == settings.get(key) for key in _OF_SPLIT):
        earlier |= load_sides(folder)
    return earlier


@dataclass
class _SavedSplit:
    """What split.json keeps for a later start, beside facts for people."""

    train: list[str] = field(default_factory=list)
    val: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    earlier: dict[str, SplitName] = field(default_factory=dict)

    @property
    def groups(self) -> Groups:
        return {"train": self.train, "val": self.val, "test": self.test}


def _saved(folder: Path) -> _SavedSplit | None:
    path = folder / SPLIT_FILE
    if not path.is_file():
        return None
    with library_errors(
        f"'{path}' is damaged",
        str(path),
        allowed="the file as the run wrote it",
        hint="delete it: the next start writes it again, from the same data and seed",
    ):
        return TypeAdapter(_SavedSplit).validate_json(path.read_bytes())


def overlapping_groups(folder: Path) -> list[str] | None:
    """The groups in more than one split of a run folder; None if no split is saved there.

    Reads the disk.
    """
    saved = _saved(folder)
    if saved is None:
        return None
    counts = Counter(chain.from_iterable(map(set, saved.groups.values())))
    return sorted(group for group, count in counts.items() if count > 1)
