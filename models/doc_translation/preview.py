"""Previews: generated translations, and pictures of pages beside texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import Module

from models.base import Picture, Predictions
from models.common.predictions import evaluating, few_samples, png, printable
from models.doc_translation.dataset import Pages, PageSample, collate
from models.doc_translation.decoding import beam_search, texts
from models.doc_translation.metric import Bleu, steds
from models.doc_translation.readers.page import PageBlock, Sheet, draw, missing_characters

PICTURES = 3
SHOWN = 3
TOKENS = 96
"""Maximum tokens per translation; each costs a forward pass."""
_WIDTH, _HEIGHT, _GAP = 480, 640, 4
_LONGEST = 1200
"""Characters of a translation that fit beside its page."""
_PICTURE_WIDTH = 960
"""Pixels."""
_GREY = (128, 128, 128)


def _written(
    model: Module, samples: Sequence[PageSample], pages: Pages, count: int, device: torch.device
) -> list[str]:
    batch = collate(samples, pages.vocabulary.pad)
    memory = model(batch["page_global"].to(device), batch["page_local"].to(device))
    return texts(beam_search(model, memory, count, pages.vocabulary), pages.vocabulary)


def preview_text(model: Module, pages: Pages, count: int, device: torch.device) -> str:
    """Reference translation of the first page, "│" and the generated one. Collective."""
    sample = pages.sample(0, None)
    with evaluating(model):
        (written,) = _written(model, [sample], pages, count, device)
    return f"{printable(sample.reference)}│{printable(written)}"


def pictures(pages: Pages, font: str | None) -> Sequence[Picture]:
    """Pictures of a few pages beside the beginning of their translations. May read from disk."""
    page_pictures = []
    for number in range(min(PICTURES, len(pages))):
        sample = pages.sample(number, None)
        image = page_beside_texts(sample, [sample.reference], font)
        caption = f"{sample.name} of {sample.document}, input of the local encoder"
        if missing := "".join(missing_characters(font, sorted(set(sample.reference)))):
            caption += f"; the font lacks {len(missing)} characters of its translation"
        page_pictures.append(Picture(f"page-{number}", caption, png(image)))
    return page_pictures


def page_beside_texts(sample: PageSample, texts: Sequence[str], font: str | None) -> Image.Image:
    """Input of the local encoder, and to its right `texts`, each rendered as a page."""
    view = sample.views[1]
    pixels = view[0] if view.shape[0] == 1 else view.transpose(1, 2, 0)
    page = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB").resize((_WIDTH, _HEIGHT))
    width = _WIDTH + _GAP
    whole = Image.new("RGB", (len(texts) * width + _WIDTH, _HEIGHT), _GREY)
    whole.paste(page, (0, 0))
    for number, text in enumerate(texts, start=1):
        lines = text[:_LONGEST].split("\n")
        blocks = [PageBlock("paragraph", line) for line in lines if line.strip()]
        rendered = draw(blocks, Sheet(_HEIGHT, _WIDTH, margin=16), font)
        if rendered is not None:
            whole.paste(rendered.convert("RGB"), (number * width, 0))
    return whole


def predict(
    model: Module, pages: Pages, count: int, bleu: Bleu, font: str | None, device: torch.device
) -> Predictions:
    """Translate pages spread over a split, up to `count` or TOKENS tokens each. Collective.

    References are cut to the same number of tokens for BLEU and STEDS.
    """
    count = min(count, TOKENS)
    samples: list[PageSample] = few_samples(pages, SHOWN)
    rows: list[tuple[str | float, ...]] = []
    pictures = []
    for sample, written in zip(samples, _written(model, samples, pages, count, device), strict=True):
        name = f"{sample.name} of {sample.document}"
        reference = pages.vocabulary.decode(sample.labels[:count].tolist())
        shown = [printable(reference), printable(written)]
        score = bleu.score(bleu.counts([written], [reference]))
        rows.append((name, *shown, score, steds(written, reference)))
        image = page_beside_texts(sample, shown, font)
        height = round(image.height * _PICTURE_WIDTH / image.width)
        image = image.resize((_PICTURE_WIDTH, height))
        caption = f"{name}: page, reference, translation"
        pictures.append(Picture(f"page_{len(rows)}", caption, png(image)))
    return Predictions(("page", "reference", "translation", "bleu", "steds"), rows, pictures)
