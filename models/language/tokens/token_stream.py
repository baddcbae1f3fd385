"""A long vector of tokens, in memory or on disk, from which short pieces are read."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, Protocol

import numpy as np

from models.base import DataError


class TokenStream(Protocol):
    """Tokens by position."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """The tokens from `start` to before `stop`."""


class TokenArray:
    """Tokens in memory."""

    def __init__(self, tokens: np.ndarray) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        """See TokenStream."""
        return self._tokens[start:stop]


class TokenFile:
    """Tokens on disk. Read and not mapped: pages of a map count as the memory of the process."""

    def __init__(self, mapped: np.memmap) -> None:
        """`mapped` is a whole .npy file, as numpy maps it."""
        assert mapped.filename is not None
        self._path, self._offset = os.fspath(mapped.filename), mapped.offset
        self._dtype, self._length = mapped.dtype, len(mapped)
        self._file = self._open()

    def _open(self) -> BinaryIO:
        return open(self._path, "rb", buffering=0)

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> np.ndarray:
        """See TokenStream. Raises DataError where the file is no longer whole."""
        size = self._dtype.itemsize
        # One position for all that share the file, such as loader workers after a fork.
        raw = os.pread(self._file.fileno(), (stop - start) * size, self._offset + start * size)
        if len(raw) != (stop - start) * size:
            raise DataError(
                "the tokens of the data are no longer whole",
                where=self._path,
                fix="delete that folder; the next start makes it anew",
            )
        return np.frombuffer(raw, self._dtype)

    def __getstate__(self) -> dict[str, Any]:
        """All but the open file, which another process opens for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._file = self._open()


def stream_of(tokens: np.ndarray) -> TokenStream:
    """`tokens` as they are, or, where they are mapped from a file, that file."""
    if isinstance(tokens, np.memmap) and len(tokens) > 0:
        return TokenFile(tokens)
    return TokenArray(tokens)
