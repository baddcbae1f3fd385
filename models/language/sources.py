"""Several sources of data: their names, and their samples as one split."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from gearshift.models.base import DataError, Draws
from gearshift.models.catalog import HUB
from gearshift.models.language.rows import Row, shuffled_band

if TYPE_CHECKING:
    from gearshift.models.language.dialogues import Samples
    from gearshift.models.language.readers.corpus import Corpus


def source_names(paths: Sequence[str]) -> list[str]:
    """A name for each source: of its file or folder, if two are equal with the folders above it."""
    for count in (1, 2, 99):
        names = [_name(path, count) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{name}-{number}" for number, name in enumerate(names, 1)]


def _name(path: str, count: int) -> str:
    """The last `count` parts of a path or of a name, as letters, digits, `_`, `.` and `-`."""
    if path.startswith(("embedded:", HUB)):
        text = re.sub("@[^:]*", "", path.partition(":")[2])  # without the commit
    else:
        text = os.path.abspath(os.path.expanduser(path))
    whole = PurePath(text)
    parts = (*whole.parts[:-1], whole.stem)
    return re.sub(r"[^\w.-]+", "-", "-".join(parts[-count:])).strip("-.")


def check_sources(corpora: Sequence[Corpus]) -> None:
    """Leave out of each source what one before it has: it could be in another split there.

    Raises DataError for sources of different kinds.
    """
    first = corpora[0]
    keys = first.keys
    for corpus in corpora[1:]:
        if corpus.is_text != first.is_text:
            texts, chats = (corpus, first) if corpus.is_text else (first, corpus)
            raise DataError(
                f"'{texts.source.name}' is plain text, and '{chats.source.name}' conversations",
                where="data.path",
                allowed="sources of one kind",
                hint="train on one after the other: see model.start",
            )
        corpus.leave_out(keys)
        keys = np.append(keys, corpus.keys)


class Mixture:
    """The samples of several sources, one after another; implements models.base.HasSources."""

    def __init__(self, parts: Sequence[Samples], weights: Sequence[float] | None) -> None:
        self.parts = parts
        self.source_sizes = list(map(len, parts))
        self.source_weights = weights
        taken = np.array(weights or self.source_sizes)
        self.shares: list[float] = (taken / taken.sum()).tolist()
        """What each has of the samples taken."""
        self._starts = list(accumulate(self.source_sizes, initial=0))
        self.length = parts[0].length
        self.row_length = parts[0].row_length
        self.temperature = parts[0].temperature
        self.mean_length = float(np.dot(self.shares, [part.mean_length for part in parts]))
        self.tokens = sum(part.tokens for part in parts)
        self.skipped = sum(part.skipped for part in parts)
        self.truncated = sum(part.truncated for part in parts)
        self.whole_length = max(part.whole_length for part in parts)
        text_bytes = sum(part.bytes_per_token * part.tokens for part in parts)
        self.bytes_per_token = text_bytes / self.tokens

    def __len__(self) -> int:
        return self._starts[-1]

    def sample(self, index: int, draws: Draws | None = None) -> Row:
        source = bisect_right(self._starts, index) - 1
        row = self.parts[source].sample(index - self._starts[source])
        return replace(row, source=source, bytes_per_token=self.bytes_per_token)

    def control(self, train: Any, size: int) -> dict[str, dict[str, float]]:
        """As of one source; of conversations, the widest band of any."""
        if self.row_length is not None:
            return shuffled_band(self, train, size)
        pairs: Any = zip(self.parts, train.parts, strict=True)
        bands = [part.control(other, size) for part, other in pairs]
        return max(bands, key=lambda band: band["exact_match"]["max"])
