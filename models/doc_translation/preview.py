"""Previews: generated translations, and pictures of pages beside texts."""

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
from models.doc_translation.decoding import greedy, texts
from models.doc_translation.metric import Bleu, steds
from models.doc_translation.readers import drawing

PICTURES = 3
_WIDTH, _HEIGHT, _GAP = 480, 640, 4
_LONGEST = 1200
"""Characters of a translation that fit beside its page."""


def preview_text(model: Module, pages: Pages, count: int, device: torch.device) -> str:
    """Reference translation of the first page, "│" and the generated one. Collective."""
    batch = collate([pages.sample(0, None)], pages.vocabulary.pad)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        memory = model(batch["page_global"].to(device), batch["page_local"].to(device))
        written = texts(greedy(model, memory, count, pages.vocabulary), pages.vocabulary)
    model.train(was_training)
    return f"{printable(batch['references'][0])}│{printable(written[0])}"


def printable(text: str) -> str:
    """`text` without control characters."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def pictures(pages: Pages, font: str | None) -> Sequence[Picture]:
    """Pictures of a few pages beside the beginning of their translations. May read from disk."""
    found = []
    for number in range(min(PICTURES, len(pages))):
        sample = pages.sample(number, None)
        buffer = io.BytesIO()
        page_beside_texts(sample, [sample.reference], font).save(buffer, "png")
        caption = f"{sample.name} of {sample.document}, input of the local encoder"
        if missing := "".join(drawing.missing_characters(font, sorted(set(sample.reference)))):
            caption += f"; the font lacks {len(missing)} characters of its translation"
        found.append(Picture(f"page-{number}", caption, buffer.getvalue()))
    return found


def page_beside_texts(sample: Sample, texts: Sequence[str], font: str | None) -> Image.Image:
    """Input of the local encoder, and to its right `texts`, each rendered as a page."""
    view = sample.near
    pixels = view[0] if view.shape[0] == 1 else view.transpose(1, 2, 0)
    page = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB").resize((_WIDTH, _HEIGHT))
    width = _WIDTH + _GAP
    whole = Image.new("RGB", (len(texts) * width + _WIDTH, _HEIGHT), (128, 128, 128))
    whole.paste(page, (0, 0))
    for number, text in enumerate(texts, start=1):
        lines = text[:_LONGEST].split("\n")
        blocks = [drawing.Block("paragraph", line) for line in lines if line.strip()]
        rendered = drawing.draw(blocks, drawing.Sheet(_HEIGHT, _WIDTH, margin=16), font)
        if rendered is not None:
            whole.paste(rendered.convert("RGB"), (number * width, 0))
    return whole


SHOWN = 3
TOKENS = 96
"""Maximum tokens per translation; each costs a forward pass."""
_PICTURE_WIDTH = 960
"""Width of a picture in pixels."""


def predict(
    model: Module, pages: Pages, count: int, bleu: Bleu, font: str | None, device: torch.device
) -> Predictions:
    """Translate pages spread over a split, up to `count` or TOKENS tokens each. Collective.

    References are cut to the same number of tokens for BLEU and STEDS.
    """
    vocabulary, count = pages.vocabulary, min(count, TOKENS)
    samples: list[Sample] = few_samples(pages, SHOWN)
    batch = collate(samples, vocabulary.pad)
    memory = model(batch["page_global"].to(device), batch["page_local"].to(device))
    written = texts(greedy(model, memory, count, vocabulary), vocabulary)
    references = [vocabulary.decode(sample.labels[:count].tolist()) for sample in samples]
    rows: list[tuple[str | float, ...]] = []
    pictures = []
    for number, (sample, reference, translation) in enumerate(
        zip(samples, references, written, strict=True), 1
    ):
        name = f"{sample.name} of {sample.document}"
        score = bleu.score(bleu.counts([translation], [reference]))
        shown = [printable(reference), printable(translation)]
        rows.append((name, *shown, score, steds(translation, reference)))
        caption = f"{name}: page, reference, translation"
        pictures.append(Picture(f"page_{number}", caption, _drawn(sample, shown, font)))
    return Predictions(("page", "reference", "translation", "bleu", "steds"), rows, pictures)


def _drawn(sample: Sample, shown: Sequence[str], font: str | None) -> bytes:
    image, buffer = page_beside_texts(sample, shown, font), io.BytesIO()
    height = round(image.height * _PICTURE_WIDTH / image.width)
    image.resize((_PICTURE_WIDTH, height)).save(buffer, "png")
    return buffer.getvalue()
