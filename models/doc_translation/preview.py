"""Samples for a person to look at: what the model writes, and what it is to learn from."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import Module

from models.base import Picture
from models.doc_translation import drawing
from models.doc_translation.dataset import Pages, Sample, collate
from models.doc_translation.decoding import greedy, texts

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
