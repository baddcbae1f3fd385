"""The common form of all recordings, EEG segments with their text, and their split."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from numpy import ndarray

from gearshift.models.base import DataError, Groups, SplitName
from gearshift.models.common.split import SPLITS, SplitRule, split_groups
from gearshift.models.eeg_text.config import CHANNELS

RATE_HZ = 500
MOST_UV = 1e6
"""1 V: no electrode on a head gives more."""
ALL_CHANNELS = tuple(range(CHANNELS))
Use = Literal["text", "encoder", "predict"]
"""What recordings are read for: with text, without it, or all EEG, which needs no texts."""


@dataclass(frozen=True)
class Item:
    """One EEG segment: a sentence that was read, or a window of a recording."""

    text: str | None
    subject: str
    group: str
    """The group that stays in one split: the normalized sentence, or a block of a recording."""
    samples: int
    """Its length in samples at 500 Hz."""
    where: str
    """File and position, for messages."""
    load: Callable[[], ndarray]
    """Reads it from the disk: microvolts [time, 105] at 500 Hz, float32, 0 in channels that were
    not recorded. Raises DataError. Can be pickled for other processes."""
    channels: tuple[int, ...] = ALL_CHANNELS
    """The indices of the recorded channels among the 105."""
    start_s: float | None = None
    """Start within the recording, in seconds; None: unknown."""


@dataclass(frozen=True)
class Recordings:
    """All EEG segments of a run."""

    items: Sequence[Item]
    facts: Mapping[str, Any]
    """For the user: format, unit of the values and how it is known, what was left out."""
    channel_map: Mapping[str, str] | None = None
    """The content of data.channels."""


def normalized(text: str) -> str:
    """`text` without case, punctuation and double spaces: equal for the same sentence."""
    return " ".join(words(text))


def words(text: str) -> list[str]:
    """The words of `text`, in lower case, without punctuation."""
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


_READER = "reader "
"""Before the name of a reader, where the run folder keeps them among the groups."""


def split_items(
    items: Sequence[Item],
    by: str,
    rule: SplitRule,
) -> tuple[Groups, dict[SplitName, list[int]], Groups]:
    """Groups and items of each split, and what the run folder keeps: groups, and readers held out.

    With `by` "subject+sentence", items whose reader and sentence are in different splits are left
    out. Raises DataError if a split would be empty, or for a fold of readers and sentences.
    """
    drawn = split_groups((item.group for item in items), rule, "sentences or blocks of recordings")
    readers: Groups = {name: [] for name in SPLITS}
    if by == "subject+sentence":
        rule.refuse_fold("both readers and sentences are groups", "--set data.split=sentence")
        names = (_READER + item.subject for item in items)
        readers = split_groups(names, replace(rule, fraction=1.0), "readers")

    split_of: dict[str, SplitName] = {}
    for name in SPLITS:
        split_of |= dict.fromkeys([*drawn[name], *readers[name]], name)
    numbers: dict[SplitName, list[int]] = {name: [] for name in SPLITS}
    for number, item in enumerate(items):
        split = split_of.get(item.group)
        # With readers held out, sentence and reader must be in the same split.
        if split is not None and split_of.get(_READER + item.subject, split) == split:
            numbers[split].append(number)

    groups = {}
    saved = {}
    for name in SPLITS:
        if not numbers[name]:
            raise DataError(
                f"{name} would be empty: none of its readers read one of its sentences",
                where="data.split=subject+sentence",
                allowed="readers who read the same sentences",
                fix="--set data.split=sentence",
            )
        groups[name] = sorted({items[number].group for number in numbers[name]})
        saved[name] = [*groups[name], *readers[name]]
    return groups, numbers, saved
