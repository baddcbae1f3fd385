"""Samples for a person to look at: what the model writes, and what it is to learn from."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import Module

from models.base import Picture, Predictions
from models.common.fixed_samples import few_samples
from models.doc_translation.dataset import Pages, Sample, collate
from models.doc_translation.metric import Bleu, steds
from models.doc_translation.model import greedy, texts
from models.doc_translation.readers import drawing

PICTURES = 3
_WIDTH, _HEIGHT, _GAP = 480, 640, 4
_LONGEST = 1200
"""Characters of a translation that fit beside its page."""


def show(model: Module, pages: Pages, count: int, device: torch.device) -> str:
    """The translation of the first page, a bar, and what the model writes. Collective."""
    batch = collate([pages.sample(0, None)], pages.vocabulary.pad)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        memory = model(batch["page_global"].to(device), batch["page_local"].to(device))
        written = texts(greedy(model, memory, count, pages.vocabulary), pages.vocabulary)
    model.train(was_training)
    return f"{legible(batch['references'][0])}│{legible(written[0])}"


def legible(text: str) -> str:
    """`text` without what could steer a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def pictures(pages: Pages, font: str | None) -> Sequence[Picture]:
    """A few pages, each beside the beginning of its translation. May read from disk."""
    found = []
    for number in range(min(PICTURES, len(pages))):
        sample = pages.sample(number, None)
        buffer = io.BytesIO()
        beside(sample, [sample.reference], font).save(buffer, "png")
        caption = f"{sample.name} of {sample.document}, as the local encoder sees it"
        if lacking := "".join(drawing.missing(font, sorted(set(sample.reference)))):
            caption += f"; the font lacks {len(lacking)} letters of its translation"
        found.append(Picture(f"page-{number}", caption, buffer.getvalue()))
    return found


def beside(sample: Sample, texts: Sequence[str], font: str | None) -> Image.Image:
    """The view of the local encoder, and right of it `texts`, each as on a page."""
    view = sample.near
    dots = view[0] if view.shape[0] == 1 else view.transpose(1, 2, 0)
    page = Image.fromarray(np.ascontiguousarray(dots)).convert("RGB").resize((_WIDTH, _HEIGHT))
    width = _WIDTH + _GAP
    whole = Image.new("RGB", (len(texts) * width + _WIDTH, _HEIGHT), (128, 128, 128))
    whole.paste(page, (0, 0))
    for number, text in enumerate(texts, start=1):
        lines = text[:_LONGEST].split("\n")
        blocks = [drawing.Block("paragraph", line) for line in lines if line.strip()]
        drawn = drawing.draw(blocks, drawing.Sheet(_HEIGHT, _WIDTH, margin=16), font)
        if drawn is not None:
            whole.paste(drawn.convert("RGB"), (number * width, 0))
    return whole


SHOWN = 3
TOKENS = 96
"""At most, of a translation: each one costs a forward pass."""
_PICTURE_WIDTH = 960
"""Of a picture, in dots."""


def predict(
    model: Module, pages: Pages, count: int, bleu: Bleu, font: str | None, device: torch.device
) -> Predictions:
    """Pages spread over a split, of each the first `count` tokens at most, or TOKENS. Collective.

    What is wanted is cut to as many tokens, so that BLEU and STEDS compare like with like.
    """
    vocabulary, count = pages.vocabulary, min(count, TOKENS)
    samples: list[Sample] = few_samples(pages, SHOWN)
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
    image.resize((_PICTURE_WIDTH, round(image.height * _PICTURE_WIDTH / image.width))).save(
        buffer, "png"
    )
    return buffer.getvalue()
