"""Which groups train, which validate and which test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from models.base import DataError, SplitName

SPLIT_FILE = "split.json"
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


def split_groups(
    groups: Iterable[str],
    fraction: float,
    share: float,
    seed: int,
    what: str,
    earlier: Mapping[str, SplitName] | None = None,
) -> dict[SplitName, list[str]]:
    """Each split's groups, sorted: a pure function of the set of groups, the shares and the seed.

    Of the `fraction` of groups that is used, `share` goes to val and as much again to test,
    rounded down. Groups with an `earlier` side stay on it; of the others, where there is such a
    side for any, at least one each is held out. Raises DataError if one of the three would be
    empty; `what` tells the family and what its groups are, such as "abr has {} groups (patients)".
    """
    ids = sorted(set(groups))
    if earlier is not None:
        return _joined(ids, fraction, share, seed, what, earlier)
    order = np.random.default_rng(seed).permutation(len(ids))
    used = [ids[i] for i in order[: max(1, round(fraction * len(ids)))]]
    held = int(share * len(used) + 1e-9)  # 0.29 * 100 is 28.999999999999996
    if held == 0 or len(used) - 2 * held < 1:
        side = "val and test" if held == 0 else "train"
        raise DataError(
            f"{side} would be empty: {what.format(len(used))}, and eval.share {share:g} of them "
            f"is {held}, held out twice",
            where="eval.share, data.fraction, data.path",
            allowed="at least one group each for train, val and test",
            fix=_mend(len(used)),
        )
    return {
        "val": sorted(used[:held]),
        "test": sorted(used[held : 2 * held]),
        "train": sorted(used[2 * held :]),
    }


def _joined(
    ids: Sequence[str],
    fraction: float,
    share: float,
    seed: int,
    what: str,
    earlier: Mapping[str, SplitName],
) -> dict[SplitName, list[str]]:
    """The split of data that joins: few groups may come at a time, and none changes its side."""
    order = np.random.default_rng(seed).permutation(len(ids))
    used = [ids[i] for i in order[: max(1, round(fraction * len(ids)))]]
    fresh = [group for group in used if group not in earlier]
    held = max(1, int(share * len(fresh) + 1e-9))
    by_split: dict[SplitName, list[str]] = {
        "val": fresh[:held],
        "test": fresh[held : 2 * held],
        "train": fresh[2 * held :],
    }
    for group in used:
        if group in earlier:
            by_split[earlier[group]].append(group)
    if empty := [name for name in SPLITS if not by_split[name]]:
        raise DataError(
            f"{' and '.join(empty)} would be empty: {what.format(len(used))}, of which "
            f"{len(fresh)} are new",
            where="data.path",
            allowed="at least one new group each for train, val and test",
            fix="more data, which joins what is there",
        )
    return {name: sorted(by_split[name]) for name in ("val", "test", "train")}


def load_sides(folder: Path) -> dict[str, SplitName]:
    """The side of each group of a split that was kept in `folder`; none where none was kept."""
    path = folder / SPLIT_FILE
    if not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {group: name for name in SPLITS for group in kept[name]}


def _mend(groups: int) -> str:
    if groups < 3:
        return f"give more data: {groups} groups cannot be three parts"
    return f"--set eval.share={max(0.1, np.ceil(100 / groups) / 100):g}, or more data"


def digest(splits: dict[SplitName, list[str]]) -> str:
    """One short word for the groups of all splits."""
    return hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()[:16]


def save_split(splits: dict[SplitName, list[str]], folder: Path, anew: bool = False) -> None:
    """Write the split to the run folder, or find there that it is the same.

    Raises DataError if the run folder holds another split: the data is no longer what it was. With
    `anew` that is meant, and the split is replaced.
    """
    path = folder / SPLIT_FILE
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8"))["digest"] == digest(splits):
            return
        if not anew:
            raise DataError(
                "the data is not what this run began with: its groups split differently",
                where=str(path),
                allowed="the data, eval.share and train.seed of the first start",
                fix="begin a new run with  --out DIR  or go on with other data:  --reset data",
            )
    counts = {name: len(groups) for name, groups in splits.items()}
    text = json.dumps({"digest": digest(splits), "counts": counts, **splits}, indent=1)
    atomic_write(path, text)


def overlapping_groups(folder: Path) -> list[str] | None:
    """The groups that stand in two splits of a run folder; None: no split is kept there.

    Reads the disk.
    """
    path = folder / SPLIT_FILE
    if not path.is_file():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    groups = [set(kept[name]) for name in SPLITS if name in kept]
    return sorted({one for a, b in combinations(groups, 2) for one in a & b})


def atomic_write(path: Path, text: str) -> None:
    """Write a file that is either not there or complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
