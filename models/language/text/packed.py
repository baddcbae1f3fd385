"""Many short texts in two arrays, a tenth of what they take as objects."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

_AT_ONCE = 4096


class Texts:
    """A read-only sequence of texts."""

    def __init__(self, letters: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        """`letters`, uint8, holds the UTF-8 of all; text i from `starts[i]` to `ends[i]`, int64."""
        # A plain view of a mapped file: slices of np.memmap are slow to make.
        self._letters, self._starts, self._ends = letters.view(np.ndarray), starts, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        return self._text(int(self._starts[index]), int(self._ends[index]))

    def _text(self, start: int, end: int) -> str:
        # What the system names a file with need not be UTF-8.
        return self._letters[start:end].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for at in range(0, len(self), _AT_ONCE):
            chosen = slice(at, at + _AT_ONCE)
            edges = zip(self._starts[chosen].tolist(), self._ends[chosen].tolist(), strict=True)
            yield from (self._text(start, end) for start, end in edges)

    def chosen(self, indices: np.ndarray) -> Texts:
        """Those at `indices`; the letters are shared."""
        return Texts(self._letters, self._starts[indices], self._ends[indices])


class TextsBuilder:
    """Gathers texts for Texts."""

    def __init__(self) -> None:
        self._letters, self._ends = bytearray(), array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, text: str) -> None:
        """One more at the end."""
        self._letters += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._letters))

    def back_to(self, count: int) -> None:
        """Forget all but the first `count`."""
        del self._ends[count:]
        del self._letters[self._ends[-1] if count else 0 :]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The letters, and the ends of the texts in them. Nothing can be added any more."""
        return np.frombuffer(self._letters, np.uint8), np.frombuffer(self._ends, np.int64)


def unpacked(letters: np.ndarray, ends: np.ndarray) -> Texts:
    """The texts of TextsBuilder.arrays."""
    return Texts(letters, np.concatenate(([0], ends[:-1])).astype(np.int64)[: len(ends)], ends)
