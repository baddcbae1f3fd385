"""The embedded sets: the small one is cached, the large one simulated sample by sample."""

from __future__ import annotations

from functools import cache

import numpy as np

from models.common import cache as kept
from models.eeg_text import formats
from models.eeg_text.config import CHANNELS
from models.eeg_text.embedded.simulator import READING, SEED, SMALL, Readers, Recipe
from models.eeg_text.recordings import Item, Recordings

EMBEDDED = dict(zip(formats.EMBEDDED, (READING, SMALL), strict=True))
KEPT_BYTES = 2**27
"""A larger set is not cached; simulating a recording takes about 2 ms."""
_VERSION = 1


@cache
def _readers(path: str) -> Readers:
    return Readers(EMBEDDED[path])


class EmbeddedSource:
    """See recordings.Source."""

    def __init__(self, path: str) -> None:
        """Reads and writes the cache if the set is small."""
        self.path = path
        recipe = EMBEDDED[path]
        values = recipe.subjects * recipe.sentences * recipe.samples * CHANNELS
        self._cached = _all(path) if 2 * values <= KEPT_BYTES else None

    def eeg(self, number: int) -> np.ndarray:
        if self._cached is not None:
            return self._cached[number].astype(np.float32)
        return _readers(self.path).recording(number)

    def recorded(self, number: int) -> np.ndarray:
        return np.ones(CHANNELS, dtype=bool)


def _all(path: str) -> np.ndarray:
    recipe: Recipe = EMBEDDED[path]
    made_from = {
        "version": _VERSION,
        "seed": SEED,
        "subjects": recipe.subjects,
        "sentences": recipe.sentences,
        "samples": recipe.samples,
        "snr_db": recipe.snr_db,
        "similarity": recipe.similarity,
    }

    def make() -> dict[str, np.ndarray]:
        readers = _readers(path)
        shape = (len(readers), recipe.samples, CHANNELS)
        made = np.empty(shape, dtype=np.float16)  # precision about 0.001 µV
        for number in range(len(readers)):
            made[number] = readers.recording(number)
        return {"eeg": made}

    return kept.arrays(f"eeg_text-{recipe.name}", made_from, make)["eeg"]


def read(path: str) -> Recordings:
    """The recordings of an embedded set; `path` is one of EMBEDDED."""
    readers = _readers(path)
    recipe = readers.recipe
    items = []
    for number in range(len(readers)):
        subject, words = readers.label(number)
        text = " ".join(words)
        where = f"{path}, recording {number}"
        items.append(Item(text, f"S{subject + 1:02d}", text, recipe.samples, where))
    return Recordings(path, "simulated", "microvolts, simulated", items, EmbeddedSource(path))
