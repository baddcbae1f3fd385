"""Translations without a model: the same one for every page, and the source text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from gearshift.models.base import Baseline, Batch
from gearshift.models.common.bleu import Bleu
from gearshift.models.doc_translation.metric import page_scores, page_sums
from gearshift.models.doc_translation.readers.page import Page

CANDIDATES = 20
"""The most frequent translations that are compared; often each occurs once."""
COMPARED = 100
"""Training pages they are compared on."""


def baselines(
    train: Iterable[Batch],
    held_out: Iterable[Batch],
    pages: Mapping[str, Page],
    bleu: Bleu,
) -> list[Baseline]:
    """A constant translation, and the source where it is known. `pages`: by name."""
    translations: list[str] = []
    for batch in train:
        translations += batch["references"]
    references: list[str] = []
    sources: list[str] = []
    for batch in held_out:
        references += batch["references"]
        for _, name in batch["meta"]:
            source = pages[name].source
            if source is not None:
                sources.append(source())

    constant = [_best(translations, bleu)] * len(references)
    methods = {"the most frequent translation for every page": constant}
    if len(sources) == len(references):
        methods["a copy of the source text"] = sources
    rows = []
    for name, written in methods.items():
        rows.append(Baseline(name, page_scores(bleu, page_sums(bleu, written, references))))
    return rows


def _best(translations: Sequence[str], bleu: Bleu) -> str:
    """Of the most frequent translations, that with the highest BLEU for training pages."""
    references = translations[:: math.ceil(len(translations) / COMPARED)]

    def score(text: str) -> float:
        return bleu.score(bleu.counts([text] * len(references), references))

    common = Counter(translations).most_common(CANDIDATES)
    return max((text for text, _ in common), key=score)
