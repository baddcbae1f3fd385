"""The sentences of the embedded sets: new combinations of words that all occur in training."""

from __future__ import annotations

import numpy as np

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
"""Sixty words; each place of a sentence has its own twelve."""

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


def draw(
    slots: dict[str, tuple[str, ...]], forms: tuple[tuple[str, ...], ...], count: int, seed: int
) -> list[tuple[str, ...]]:
    """`count` distinct sentences as words, each form and each word equally likely."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[str, ...], None] = {}
    while len(found) < count:
        form = forms[int(rng.integers(len(forms)))]
        words = tuple(slots[place][int(rng.integers(len(slots[place])))] for place in form)
        found.setdefault(words)
    return list(found)
