"""Built-in data: simulated EEG of readers, in which each word evokes its own wave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from models.common.cache import arrays
from models.eeg_text import formats
from models.eeg_text.config import CHANNELS
from models.eeg_text.montage import INDICES
from models.eeg_text.recordings import Item, Recordings

RATE_HZ = 500
SEED = 2024
"""Fixed: the seed of a run changes only the split and the order."""

CODES = 4
"""Evoked components per word and region, each spread over the channels of the region."""
DELAY_S, SPREAD_S = 0.32, 0.07
"""The evoked wave: a bell around 0.32 s after onset, within 0.15 to 0.5 s."""
SOURCES = 24
"""Sources of background activity, whose mixture correlates the channels."""
NOISE_UV = 10.0


SLOTS: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "quality": "old young small tall quiet happy angry tired clever brave lazy famous",
        "who": "man woman child doctor farmer teacher sailor baker king thief poet guard",
        "does": "finds sells paints carries steals washes breaks hides wants draws forgets mends",
        "what": "apple bottle camera drum envelope flute guitar hammer island jacket kettle lamp",
        "when": "today often twice never slowly alone abroad outside again quickly there soon",
    }.items()
}
"""Sixty words: twelve for each position of a sentence."""

FORMS: tuple[tuple[str, ...], ...] = (
    ("who", "does", "what"),
    ("quality", "who", "does", "what"),
    ("quality", "who", "does", "what", "when"),
)

SMALL_SLOTS: dict[str, tuple[str, ...]] = {
    "who": ("ant", "bee", "cat", "dog", "fox", "hen", "owl", "pig"),
    "does": ("bit", "fed", "got", "hid", "led", "met", "saw", "won"),
    "what": ("bag", "cup", "hat", "jar", "key", "map", "pot", "tin"),
}
SMALL_FORMS: tuple[tuple[str, ...], ...] = (("who", "does", "what"),)


def draw_sentences(
    slots: dict[str, tuple[str, ...]], forms: tuple[tuple[str, ...], ...], count: int, seed: int
) -> list[tuple[str, ...]]:
    """`count` distinct sentences as words, with uniform forms and words."""
    rng = np.random.default_rng(seed)
    sentences: dict[tuple[str, ...], None] = {}
    while len(sentences) < count:
        form = forms[int(rng.integers(len(forms)))]
        words = tuple(slots[name][int(rng.integers(len(slots[name])))] for name in form)
        sentences.setdefault(words)
    return list(sentences)


@dataclass(frozen=True)
class Recipe:
    """The parameters of one set."""

    name: str
    subjects: int
    sentences: int
    slots: dict[str, tuple[str, ...]]
    forms: tuple[tuple[str, ...], ...]
    word_s: float
    """Time from word onset to word onset."""
    samples: int
    """Of each recording; constant, so that the length does not reveal the number of words."""
    snr_db: float
    """Of one channel, during an evoked wave."""
    similarity: float
    """Correlation of the mixing matrices of subjects; 1: identical."""


READING = Recipe("reading", 12, 400, SLOTS, FORMS, 0.3, 800, snr_db=-6.0, similarity=0.7)
SMALL = Recipe(
    "reading-small", 3, 256, SMALL_SLOTS, SMALL_FORMS, 0.24, 480,
    snr_db=5.0, similarity=0.95,
)  # fmt: skip


class Readers:
    """What all recordings of a recipe share, drawn once."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.sentences = draw_sentences(recipe.slots, recipe.forms, recipe.sentences, SEED)
        self.words = sorted({word for words in recipe.slots.values() for word in words})
        rng = np.random.default_rng(SEED)
        regions = len(INDICES)
        self._codes = rng.standard_normal((len(self.words), regions, CODES), dtype=np.float32)
        mixings = np.stack([self._mixing(rng) for _ in range(recipe.subjects)])
        like = recipe.similarity
        mixed = np.sqrt(like) * self._mixing(rng) + np.sqrt(1 - like) * mixings
        self._mixing_of = mixed.astype(np.float32)
        self._sources = rng.standard_normal((SOURCES, CHANNELS), dtype=np.float32)
        self._sources /= np.sqrt(SOURCES)

    def _mixing(self, rng: np.random.Generator) -> np.ndarray:
        """The matrix from the codes of all regions to channels; each region reaches its own."""
        mixing = np.zeros((len(INDICES), CODES, CHANNELS), dtype=np.float32)
        for number, channels in enumerate(INDICES.values()):
            shape = (CODES, len(channels))
            mixing[number][:, channels] = rng.standard_normal(shape, dtype=np.float32)
        return mixing.reshape(-1, CHANNELS) / np.float32(np.sqrt(CODES))

    def __len__(self) -> int:
        return self.recipe.subjects * self.recipe.sentences

    def label(self, index: int) -> tuple[int, tuple[str, ...]]:
        subject, sentence = divmod(index, self.recipe.sentences)
        return subject, self.sentences[sentence]

    def recording(self, index: int) -> np.ndarray:
        """Microvolts [time, 105], float32; deterministic."""
        subject, words = self.label(index)
        rng = np.random.default_rng([SEED, index])
        background = _background(rng, self.recipe.samples) @ self._sources
        background += 0.3 * rng.standard_normal((self.recipe.samples, CHANNELS), dtype=np.float32)
        evoked = self._evoked(words, subject, rng)
        gain = np.float32(10 ** (self.recipe.snr_db / 20))
        return (background + gain * evoked + _blinks(rng, self.recipe.samples)) * NOISE_UV

    def _evoked(self, words: tuple[str, ...], subject: int, rng: np.random.Generator) -> np.ndarray:
        onsets = np.arange(len(words)) * self.recipe.word_s + rng.uniform(-0.02, 0.02, len(words))
        time = np.arange(self.recipe.samples)[:, None] / RATE_HZ
        waves = np.exp(-(((time - onsets - DELAY_S) / SPREAD_S) ** 2) / 2).astype(np.float32)
        codes = self._codes[[self.words.index(word) for word in words]].reshape(len(words), -1)
        return waves @ (codes @ self._mixing_of[subject])


def _background(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Sources [time, SOURCES] with power 1/f and alpha waves, of variance 1 each."""
    frequency = np.fft.rfftfreq(samples, 1 / RATE_HZ)
    amplitude = np.zeros(len(frequency), dtype=np.float32)
    amplitude[1:] = 1 / np.sqrt(frequency[1:])
    amplitude += 0.35 * np.exp(-(((frequency - 10) / 1.0) ** 2) / 2)
    parts = rng.standard_normal((2, SOURCES, len(frequency)), dtype=np.float32)
    waves = np.fft.irfft((parts[0] + 1j * parts[1]) * amplitude, n=samples).astype(np.float32)
    return (waves / waves.std(axis=1, keepdims=True)).T


def _blinks(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A blink in some recordings: a slow frontal wave, [time, 105]."""
    blinks = np.zeros((samples, CHANNELS), dtype=np.float32)
    if rng.random() < 0.2:
        time = (np.arange(samples) - rng.uniform(0, samples)) / RATE_HZ
        blinks[:, INDICES["prefrontal"]] = 6 * np.exp(-((time / 0.08) ** 2) / 2)[:, None]
    return blinks


EMBEDDED = dict(zip(formats.EMBEDDED, (READING, SMALL), strict=True))
KEPT_BYTES = 2**27
"""A larger set is not cached; simulating a recording takes about 2 ms."""
_VERSION = 1


@cache
def _readers(path: str) -> Readers:
    return Readers(EMBEDDED[path])


class EmbeddedSource:
    """See recordings.SegmentSource."""

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

    return arrays(f"eeg_text-{recipe.name}", made_from, make)["eeg"]


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
