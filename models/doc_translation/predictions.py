"""What the model writes of a few pages, beside their translation, for a person to look at."""

from __future__ import annotations

import io

import torch
from torch.nn import Module

from models.base import Picture, Predictions
from models.common.chosen import few
from models.doc_translation.dataset import Pages, Sample, collate
from models.doc_translation.decoding import greedy, texts
from models.doc_translation.preview import beside, legible
from models.doc_translation.scores import Bleu
from models.doc_translation.structure import steds

SHOWN = 3
TOKENS = 96
"""At most, of a translation: each one costs a forward pass."""
_WIDTH = 960
"""Of a picture, in dots."""


def predict(
    model: Module, pages: Pages, count: int, bleu: Bleu, font: str | None, device: torch.device
) -> Predictions:
    """Pages spread over a split, of each the first `count` tokens at most, or TOKENS. Collective.

    What is wanted is cut to as many tokens, so that BLEU and STEDS compare like with like.
    """
    vocabulary, count = pages.vocabulary, min(count, TOKENS)
    samples: list[Sample] = few(pages, SHOWN)
    batch = collate(samples, vocabulary.pad)
    memory = model(batch["page_global"].to(device), batch["page_local"].to(device))
    written = texts(greedy(model, memory, count, vocabulary), vocabulary)
    wanted = [vocabulary.decode(sample.labels[:count].tolist()) for sample in samples]
    rows, pictures = [], []
    for number, (sample, want, own) in enumerate(zip(samples, wanted, written, strict=True), 1):
        name = f"{sample.name} of {sample.document}"
        score = bleu.score(bleu.counts([own], [want]))
        rows.append((name, legible(want), legible(own), score, steds(own, want)))
        caption = f"{name}: the page, what is wanted, what is written"
        pictures.append(Picture(f"page_{number}", caption, _drawn(sample, want, own, font)))
    return Predictions(("page", "wanted", "written", "bleu", "steds"), rows, pictures)


def _drawn(sample: Sample, wanted: str, written: str, font: str | None) -> bytes:
    image = beside(sample, [legible(wanted), legible(written)], font)
    buffer = io.BytesIO()
    image.resize((_WIDTH, round(image.height * _WIDTH / image.width))).save(buffer, "png")
    return buffer.getvalue()
