"""Previews: generated translations, and pictures of pages."""

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

PICTURES = 3
SHOWN = 3
TOKENS = 96
"""Maximum tokens per translation; each costs a forward pass."""
_WIDTH, _HEIGHT = 480, 640


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


def pictures(pages: Pages) -> Sequence[Picture]:
    """Pictures of a few pages. May read from disk."""
    samples = [pages.sample(number, None) for number in range(min(PICTURES, len(pages)))]
    return [_picture(sample, f"page-{number}") for number, sample in enumerate(samples)]


def _picture(sample: PageSample, name: str) -> Picture:
    pixels = sample.views[1].transpose(1, 2, 0)
    page = Image.fromarray(np.ascontiguousarray(pixels.squeeze())).resize((_WIDTH, _HEIGHT))
    return Picture(name, f"{sample.name} of {sample.document}, input of the local encoder", png(page))


def predict(model: Module, pages: Pages, count: int, bleu: Bleu, device: torch.device) -> Predictions:
    """Translate pages spread over a split, up to `count` or TOKENS tokens each. Collective.

    References are cut to the same number of tokens for BLEU and STEDS.
    """
    count = min(count, TOKENS)
    samples: list[PageSample] = few_samples(pages, SHOWN)
    rows: list[tuple[str | float, ...]] = []
    for sample, written in zip(samples, _written(model, samples, pages, count, device), strict=True):
        reference = pages.vocabulary.decode(sample.labels[:count].tolist())
        scores = bleu.score(bleu.counts([written], [reference])), steds(written, reference)
        name = f"{sample.name} of {sample.document}"
        rows.append((name, printable(reference), printable(written), *scores))
    pictures = [_picture(sample, f"page_{number}") for number, sample in enumerate(samples, start=1)]
    return Predictions(("page", "reference", "translation", "bleu", "steds"), rows, pictures)
