"""Which recordings train, validate and test: by sentence, and if wanted by reader, too."""

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
class Parts:
    """The groups of each split, and the numbers of their items."""

    groups: dict[SplitName, list[str]]
    readers: dict[SplitName, list[str]]
    """Empty where readers are not held out."""
    numbers: dict[SplitName, list[int]]

    def save(self, folder: Path | None, replace: bool) -> None:
        """Write the split to the run folder, or find that it is the same. Raises DataError."""
        if folder is None:
            return
        named = {
            name: [*self.groups[name], *(_READER + r for r in self.readers.get(name, ()))]
            for name in SPLITS
        }
        save_split(named, folder, replace)


def divide(
    items: Sequence[Item],
    by: str,
    fraction: float,
    share: float,
    seed: int,
    earlier: Mapping[str, SplitName] | None = None,
) -> Parts:
    """Each split's items. With `by` "subject+sentence" items whose reader and sentence belong to
    different splits are left out. `earlier` as for split_groups.

    Raises DataError where a split would be empty.
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
                f"{name} would be empty: no reader of it has read one of its sentences",
                where="data.split=subject+sentence",
                allowed="readers who have read the same sentences",
                fix="--set data.split=sentence",
            )
        present = {items[n].group for n in numbers[name]}
        groups[name] = [group for group in groups[name] if group in present]
    return Parts(groups, readers, numbers)


def _readers(earlier: Mapping[str, SplitName]) -> dict[str, SplitName]:
    """The readers among groups, as `keep` named them."""
    return {
        group.removeprefix(_READER): side
        for group, side in earlier.items()
        if group.startswith(_READER)
    }
