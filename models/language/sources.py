"""Several sources of data: their names, and their samples as one split."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gearshift.models.base import DataError, Draws
from gearshift.models.catalog import HUB

if TYPE_CHECKING:
    from gearshift.models.language.dialogues import Samples
    from gearshift.models.language.readers.corpus import Corpus
    from gearshift.models.language.rows import Row


def source_names(paths: Sequence[str]) -> list[str]:
    """The name of each source, of its file, folder or data set; numbered if two are equal.

    They have letters, digits, `_`, `.` and `-`.
    """
    names = []
    for path in paths:
        if path.startswith(("embedded:", HUB)):
            last = re.sub("@[^:]*", "", path.partition(":")[2]).split("/")[-1]  # without the commit
        else:
            last = Path(path).expanduser().absolute().stem
        names.append(re.sub(r"[^\w.-]+", "-", last).strip("-."))
    if len(set(names)) == len(names):
        return names
    return [f"{name}-{number}" for number, name in enumerate(names, 1)]


def check_sources(corpora: Sequence[Corpus]) -> None:
    """Leave out of each source what one before it has: it could be in another split there.

    Raises DataError for sources of different kinds.
    """
    first = corpora[0]
    keys = first.keys
    for corpus in corpora[1:]:
        if corpus.is_text != first.is_text:
            raise DataError(
                f"one of '{first.source.name}' and '{corpus.source.name}' is plain text, "
                "the other is conversations",
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
        self._starts = list(accumulate(self.source_sizes, initial=0))
        self.length = parts[0].length
        self.mean_length = self._mean("mean_length", taken / taken.sum())
        tokens = np.array([part.tokens for part in parts])
        self._bytes_per_token = self._mean("bytes_per_token", tokens / tokens.sum())

    def _mean(self, name: str, shares: np.ndarray) -> float:
        """The mean of a number that each source has."""
        return float(np.dot(shares, [getattr(part, name) for part in self.parts]))

    def __len__(self) -> int:
        return self._starts[-1]

    def sample(self, index: int, draws: Draws | None = None) -> Row:
        source = bisect_right(self._starts, index) - 1
        row = self.parts[source].sample(index - self._starts[source])
        return replace(row, source=source, bytes_per_token=self._bytes_per_token)
