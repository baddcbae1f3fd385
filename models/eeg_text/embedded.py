"""Built-in data: simulated EEG of readers, in which each word evokes its own wave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from gearshift.models.common.array_file import Arrays
from gearshift.models.common.cache import arrays
from gearshift.models.eeg_text import formats
from gearshift.models.eeg_text.config import CHANNELS
from gearshift.models.eeg_text.montage import INDICES
from gearshift.models.eeg_text.recordings import RATE_HZ, Item, Recordings

SEED = 2024
"""Fixed: the seed of a run changes only the split and the order."""

CODES = 4
"""Evoked components per word and region, each spread over the channels of the region."""
DELAY_S = 0.32
SPREAD_S = 0.07
"""The evoked wave: a bell around 0.32 s after onset, within 0.15 to 0.5 s."""
SOURCES = 24
"""Sources of background activity, whose mixture correlates the channels."""
NOISE_UV = 10.0

Words = tuple[str, ...]
SLOTS = {
    "quality": "old young small tall quiet happy angry tired clever brave lazy famous",
    "who": "man woman child doctor farmer teacher sailor baker king thief poet guard",
    "does": "finds sells paints carries steals washes breaks hides wants draws forgets mends",
    "what": "apple bottle camera drum envelope flute guitar hammer island jacket kettle lamp",
    "when": "today often twice never slowly alone abroad outside again quickly there soon",
}
"""Sixty words: twelve for each position of a sentence."""
FORMS = ("who does what", "quality who does what", "quality who does what when")
SMALL_SLOTS = {
    "who": "ant bee cat dog fox hen owl pig",
    "does": "bit fed got hid led met saw won",
    "what": "bag cup hat jar key map pot tin",
}


class Recipe(NamedTuple):
    """The parameters of one set."""

    name: str
    subjects: int
    sentences: int
    slots: dict[str, str]
    """The words for each position of a sentence."""
    forms: Words
    word_s: float
    """Time from word onset to word onset."""
    samples: int
    """Of each recording; constant, so that the length does not reveal the number of words."""
    snr_db: float
    """Of one channel, during an evoked wave."""
    similarity: float
    """Correlation of the mixing matrices of subjects; 1: identical."""

    def texts(self) -> list[Words]:
        """The distinct sentences as words, with uniform forms and words."""
        rng = np.random.default_rng(SEED)
        sentences: dict[Words, None] = {}
        while len(sentences) < self.sentences:
            words = []
            for slot in rng.choice(self.forms).split():
                words.append(rng.choice(self.slots[slot].split()))
            sentences[tuple(words)] = None
        return list(sentences)


READING = Recipe(
    name="reading",
    subjects=12,
    sentences=400,
    slots=SLOTS,
    forms=FORMS,
    word_s=0.3,
    samples=800,
    snr_db=-6.0,
    similarity=0.7,
)
SMALL = Recipe(
    name="reading-small",
    subjects=3,
    sentences=256,
    slots=SMALL_SLOTS,
    forms=FORMS[:1],
    word_s=0.24,
    samples=480,
    snr_db=5.0,
    similarity=0.95,
)
EMBEDDED = dict(zip(formats.EMBEDDED, (READING, SMALL), strict=True))


@dataclass
class Readers:
    """Values that all recordings of a recipe share, drawn once."""

    recipe: Recipe

    def __post_init__(self) -> None:
        recipe = self.recipe
        self.sentences = recipe.texts()
        self.words = sorted({*" ".join(recipe.slots.values()).split()})
        rng = np.random.default_rng(SEED)
        self._codes = _normal(rng, len(self.words), len(INDICES) * CODES)
        mixings = np.stack([_mixing(rng) for _ in range(recipe.subjects)])
        # The mixing matrices of readers are similar, so that one reader can learn from another.
        common = np.sqrt(recipe.similarity) * _mixing(rng)
        mixed = common + np.sqrt(1 - recipe.similarity) * mixings
        self._mixing_of = mixed.astype(np.float32)
        self._sources = _normal(rng, SOURCES, CHANNELS)
        self._sources /= np.sqrt(SOURCES)  # in place: it stays float32

    def __len__(self) -> int:
        return self.recipe.subjects * self.recipe.sentences

    def recording(self, index: int) -> ndarray:
        """Microvolts [time, 105], float32; deterministic."""
        recipe = self.recipe
        samples = recipe.samples
        subject, sentence = divmod(index, recipe.sentences)
        words = self.sentences[sentence]
        rng = np.random.default_rng([SEED, index])
        # Waves of common sources, and a little noise of each channel.
        background = _background(rng, samples) @ self._sources
        background += 0.3 * _normal(rng, samples, CHANNELS)
        count = len(words)
        onsets = np.arange(count) * recipe.word_s + rng.uniform(-0.02, 0.02, count)
        time = np.arange(samples)[:, None] / RATE_HZ
        # After each word a bell, in which its codes reach the channels as this reader mixes them.
        away = (time - onsets - DELAY_S) / SPREAD_S
        waves = np.exp(-(away**2) / 2).astype(np.float32)
        codes = self._codes[[self.words.index(word) for word in words]]
        gain = np.float32(10 ** (recipe.snr_db / 20))
        eeg = background + gain * (waves @ (codes @ self._mixing_of[subject]))
        # In some recordings the reader blinks: a slow frontal wave.
        if rng.random() < 0.2:
            away = (np.arange(samples) - rng.uniform(0, samples)) / RATE_HZ / 0.08
            wave = 6 * np.exp(-(away**2) / 2)
            eeg[:, INDICES["prefrontal"]] += wave[:, None].astype(np.float32)
        return eeg * NOISE_UV


def _normal(rng: Generator, *shape: int) -> ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _mixing(rng: Generator) -> ndarray:
    """The matrix from the codes of all regions to channels; each region reaches its own."""
    mixing = np.zeros((len(INDICES), CODES, CHANNELS), dtype=np.float32)
    for of_region, channels in zip(mixing, INDICES.values(), strict=True):
        of_region[:, channels] = _normal(rng, CODES, len(channels))
    return mixing.reshape(-1, CHANNELS) / np.float32(np.sqrt(CODES))


def _background(rng: Generator, samples: int) -> ndarray:
    """Sources [time, SOURCES] with power 1/f and alpha waves, of variance 1 each."""
    frequency = np.fft.rfftfreq(samples, 1 / RATE_HZ)
    amplitude = np.zeros(len(frequency), dtype=np.float32)
    amplitude[1:] = 1 / np.sqrt(frequency[1:])
    amplitude += 0.35 * np.exp(-((frequency - 10) ** 2) / 2)
    real, imaginary = _normal(rng, 2, SOURCES, len(frequency))
    spectrum = (real + 1j * imaginary) * amplitude
    waves = np.fft.irfft(spectrum, n=samples).astype(np.float32)
    return (waves / waves.std(axis=1, keepdims=True)).T


@cache
def _readers(path: str) -> Readers:
    return Readers(EMBEDDED[path])


@cache
def _cached(path: str) -> ndarray | None:
    """All recordings of the small set, mapped from the cache; None: the large set has no cache.

    Simulating a recording takes about 2 ms.
    """
    readers = _readers(path)
    recipe = readers.recipe
    if recipe is READING:
        return None

    def make() -> Arrays:
        recordings = map(readers.recording, range(len(readers)))
        return {"eeg": np.stack([eeg.astype(np.float16) for eeg in recordings])}  # to 0.001 µV

    made_from = {**recipe._asdict(), "version": 1, "seed": SEED}
    return arrays(f"eeg_text-{recipe.name}", made_from, make)["eeg"]


def load(path: str, number: int) -> ndarray:
    """Microvolts [time, 105] of a recording, float32. Reads and writes the cache of a small set."""
    cached = _cached(path)
    if cached is None:
        return _readers(path).recording(number)
    return cached[number].astype(np.float32)


def read(path: str) -> Recordings:
    """The recordings of an embedded set; `path` is one of EMBEDDED. Reads and writes the cache."""
    _cached(path)  # before workers ask for it
    readers = _readers(path)
    items = []
    for number in range(len(readers)):
        subject, sentence = divmod(number, len(readers.sentences))
        text = " ".join(readers.sentences[sentence])
        item = Item(
            text=text,
            subject=f"S{subject + 1:02d}",
            group=text,
            samples=readers.recipe.samples,
            where=f"{path}, recording {number}",
            load=partial(load, path, number),
        )
        items.append(item)
    return Recordings(items, {"format": "simulated", "unit": "microvolts, simulated"})
