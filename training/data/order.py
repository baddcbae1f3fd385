"""The data order: a seeded permutation computed by index, cut into global batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gearshift.training.seeds import derive
from gearshift.training.settings import SettingError

_ROUNDS = 8
_AT_ONCE = 4096  # Positions permuted per call of numpy, whose overhead equals a few hundred of them


class DataOrder:
    """The samples of each global batch, the same for any number of ranks and workers.

    Every epoch is another permutation. It drops its last `length % global_batch` samples, different
    ones in each epoch. Nothing is stored; any step is found in constant time.
    """

    def __init__(self, length: int, global_batch: int, seed: int):
        """Raises SettingError if `length` samples do not fill one global batch."""
        if length < global_batch:
            raise SettingError(
                "train.global_batch",
                global_batch,
                f"exceeds the {length} training samples",
                f"1 to {length}, or more data",
            )
        self.length = length
        self.global_batch = global_batch
        self.seed = seed
        self.steps_per_epoch = length // global_batch
        self._steps_at_once = max(1, _AT_ONCE // global_batch)
        self._block: tuple[int, int] = (-1, -1)
        self._indices: NDArray[np.int64] = np.empty(0, np.int64)

    def batch(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """Epoch (from 0) and sample indices [global_batch] of the step after `step` updates."""
        epoch, position = divmod(step, self.steps_per_epoch)
        block, offset = divmod(position, self._steps_at_once)
        if (epoch, block) != self._block:
            size = self._steps_at_once * self.global_batch
            start = block * size
            positions = np.arange(
                start,
                min(start + size, self.length),
                dtype=np.uint64,
            )
            seed = derive(self.seed, "order", epoch)
            keys = [derive(seed, "round", number) for number in range(_ROUNDS)]
            self._indices = permute(positions, self.length, keys)
            self._block = epoch, block
        first = offset * self.global_batch
        return epoch, self._indices[first : first + self.global_batch]

    def share(
        self,
        step: int,
        rank: int,
        world_size: int,
        micro_batch: int,
    ) -> tuple[int, list[list[int]]]:
        """Epoch, and the sample indices of each micro-batch of `rank` in that step.

        Raises ValueError if the global batch does not divide into such micro-batches.
        """
        epoch, indices = self.batch(step)
        micro_batches = indices.reshape(world_size, -1, micro_batch)[rank]
        return epoch, micro_batches.tolist()


def permute(positions: NDArray[np.uint64], length: int, keys: Sequence[int]) -> NDArray[np.int64]:
    """`positions`, each in [0, length), after the permutation that `keys` select.

    A Feistel network on the two digits of a position, with radix about the square root of `length`;
    results outside the range pass through it again. Source: Black and Rogaway, Ciphers with
    Arbitrary Finite Domains, 2002, sections 4 and 5. The round function is fast and not secure.
    """
    radix = math.isqrt(length - 1) + 1
    permuted = _feistel(positions, radix, keys)
    while True:
        outside = np.flatnonzero(permuted >= length)
        if not outside.size:
            return permuted.astype(np.int64)
        permuted[outside] = _feistel(permuted[outside], radix, keys)


def _feistel(values: NDArray[np.uint64], radix: int, keys: Sequence[int]) -> NDArray[np.uint64]:
    base = np.uint64(radix)
    high, low = np.divmod(values, base)
    for key in keys:
        mixed = _mix(low + np.uint64(key)) % base
        high, low = low, (high + mixed) % base
    return high * base + low


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64 bits. Source: Steele, Lea and Flood, SplitMix, 2014; constants of variant 13."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
