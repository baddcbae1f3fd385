"""The split of EEG segments: by sentence, optionally also by reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.base import DataError, SplitName
from models.common.split import SPLITS, save_split, split_groups
from models.eeg_text.recordings import Item

GROUPS = "sentences or blocks of recordings"
READERS = "readers"
_READER = "reader "


@dataclass(frozen=True)
class ItemSplit:
    """The groups of each split, and the indices of their items."""

    groups: dict[SplitName, list[str]]
    readers: dict[SplitName, list[str]]
    """Empty unless readers are held out."""
    numbers: dict[SplitName, list[int]]

    def save(self, folder: Path | None, replace: bool) -> None:
        """Save the split in the run folder, or check it there; see save_split. Raises DataError."""
        if folder is None:
            return
        named = {
            name: [*self.groups[name], *(_READER + r for r in self.readers.get(name, ()))]
            for name in SPLITS
        }
        save_split(named, folder, replace)


def split_items(
    items: Sequence[Item],
    by: str,
    fraction: float,
    share: float,
    seed: int,
    earlier: Mapping[str, SplitName] | None = None,
) -> ItemSplit:
    """The items of each split.

    With `by` "subject+sentence", items whose reader and sentence are in different splits are left
    out. `earlier` as for split_groups. Raises DataError if a split would be empty.
    """
    groups = split_groups((item.group for item in items), fraction, share, seed, GROUPS, earlier)
    of_group = {group: name for name in SPLITS for group in groups[name]}
    readers: dict[SplitName, list[str]] = {}
    if by == "subject+sentence":
        known = None if earlier is None else _readers(earlier)
        readers = split_groups((item.subject for item in items), 1.0, share, seed, READERS, known)
    of_reader = {reader: name for name in readers for reader in readers[name]}
    numbers: dict[SplitName, list[int]] = {name: [] for name in SPLITS}
    for number, item in enumerate(items):
        name = of_group.get(item.group)
        if name is not None and (not readers or of_reader[item.subject] == name):
            numbers[name].append(number)
    for name in SPLITS:
        if not numbers[name]:
            raise DataError(
                f"{name} would be empty: none of its readers read one of its sentences",
                where="data.split=subject+sentence",
                allowed="readers who read the same sentences",
                fix="--set data.split=sentence",
            )
        present = {items[n].group for n in numbers[name]}
        groups[name] = [group for group in groups[name] if group in present]
    return ItemSplit(groups, readers, numbers)


def _readers(earlier: Mapping[str, SplitName]) -> dict[str, SplitName]:
    return {
        group.removeprefix(_READER): side
        for group, side in earlier.items()
        if group.startswith(_READER)
    }
