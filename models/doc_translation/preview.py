"""Previews: generated translations, and pictures of pages beside texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import Module

from models.base import Batch, Picture, Predictions
from models.common.predictions import (
    FixedDraws,
    evaluating,
    few_samples,
    placed,
    png,
    printable,
    scores_of,
)
from models.doc_translation import images, masked_pages
from models.doc_translation.dataset import Pages, PageSample, collate
from models.doc_translation.decoding import greedy, texts
from models.doc_translation.masked_pages import MaskedPages, page_of, patches
from models.doc_translation.metric import Bleu, steds
from models.doc_translation.readers.page import PageBlock, Sheet, draw, missing_characters

PICTURES = 3
_WIDTH, _HEIGHT, _GAP = 480, 640, 4
_LONGEST = 1200
"""Characters of a translation that fit beside its page."""


def preview_text(model: Module, pages: Pages, count: int, device: torch.device) -> str:
    """Reference translation of the first page, "│" and the generated one. Collective."""
    batch = collate([pages.sample(0, None)], pages.vocabulary.pad)
    with evaluating(model):
        memory = model(batch["page_global"].to(device), batch["page_local"].to(device))
        written = texts(greedy(model, memory, count, pages.vocabulary), pages.vocabulary)
    return f"{printable(batch['references'][0])}│{printable(written[0])}"


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
    view = sample.near
    pixels = view[0] if view.shape[0] == 1 else view.transpose(1, 2, 0)
    page = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB").resize((_WIDTH, _HEIGHT))
    width = _WIDTH + _GAP
    whole = Image.new("RGB", (len(texts) * width + _WIDTH, _HEIGHT), (128, 128, 128))
    whole.paste(page, (0, 0))
    for number, text in enumerate(texts, start=1):
        lines = text[:_LONGEST].split("\n")
        blocks = [PageBlock("paragraph", line) for line in lines if line.strip()]
        rendered = draw(blocks, Sheet(_HEIGHT, _WIDTH, margin=16), font)
        if rendered is not None:
            whole.paste(rendered.convert("RGB"), (number * width, 0))
    return whole


SHOWN = 3
TOKENS = 96
"""Maximum tokens per translation; each costs a forward pass."""
_PICTURE_WIDTH = 960
"""Width of a picture in pixels."""
_MASKED_WIDTH = 640
"""The same for pages with masked patches, whose noise is hard to compress."""


def predict(
    model: Module, pages: Pages, count: int, bleu: Bleu, font: str | None, device: torch.device
) -> Predictions:
    """Translate pages spread over a split, up to `count` or TOKENS tokens each. Collective.

    References are cut to the same number of tokens for BLEU and STEDS.
    """
    vocabulary, count = pages.vocabulary, min(count, TOKENS)
    samples: list[PageSample] = few_samples(pages, SHOWN)
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


def _drawn(sample: PageSample, shown: Sequence[str], font: str | None) -> bytes:
    image = page_beside_texts(sample, shown, font)
    height = round(image.height * _PICTURE_WIDTH / image.width)
    return png(image.resize((_PICTURE_WIDTH, height)))


def masked_pictures(pages: MaskedPages) -> Sequence[Picture]:
    """A few pages beside what the local encoder sees of them. May read from disk."""
    page_pictures = []
    for number in range(min(PICTURES, len(pages))):
        sample = pages.sample(number, FixedDraws())
        batch = masked_pages.collate([sample])
        seen = _without_masked(batch.get("seen_local", batch["page_local"])[0], batch, 0, pages)
        caption = f"{sample.name} of {sample.document}, input of the local encoder, and masked"
        image = _side_by_side([batch["page_local"][0], seen])
        page_pictures.append(Picture(f"page-{number}", caption, image))
    return page_pictures


def predict_masked(
    model: Module, pages: MaskedPages, mean_page: tuple[Tensor, Tensor], device: torch.device
) -> Predictions:
    """Predict masked patches of pages spread over a split. One forward pass, collective."""
    samples = few_samples(pages, SHOWN)
    batch = masked_pages.collate(samples)
    guesses = [guess.cpu() for guess in masked_pages.predict(model, placed(batch, device))]
    metric = masked_pages.MaskedMetric(pages.size, mean_page)
    width, patch = pages.size.local.pixels[1], pages.size.local.patch
    rows: list[tuple[str | float, ...]] = []
    pictures = []
    for row, sample in enumerate(samples):
        scores = scores_of(metric, guesses, batch, row)
        name = f"{sample.name} of {sample.document}"
        rows.append((name, scores["val_masked_r2_global"], scores["val_masked_r2_local"]))
        page = batch["page_local"][row]
        seen = batch.get("seen_local", batch["page_local"])[row]
        drawn, mask = patches(page[None], patch), batch["mask_local"][row]
        drawn[0, mask] = guesses[1][row, mask]
        guess = page_of(drawn, patch, width)[0]
        caption = f"{name}: page, visible patches, predicted patches"
        image = _side_by_side([page, _without_masked(seen, batch, row, pages), guess])
        pictures.append(Picture(f"page_{row + 1}", caption, image))
    return Predictions(("page", "global r2", "local r2"), rows, pictures)


def _without_masked(page: Tensor, batch: Batch, row: int, pages: MaskedPages) -> Tensor:
    """`page` [3, height, width] with grey patches where `batch` masks the local view."""
    patch = pages.size.local.patch
    visible = patches(page[None].clone(), patch)
    visible[0, batch["mask_local"][row]] = 0.0
    return page_of(visible, patch, pages.size.local.pixels[1])[0]


def _side_by_side(views: Sequence[Tensor]) -> bytes:
    """PNG of local views [3, height, width] beside each other."""
    arrays = [images.pixels_of_local(view) for view in views]
    width = _MASKED_WIDTH // len(arrays) - _GAP
    height = round(width * arrays[0].shape[0] / arrays[0].shape[1])
    whole = Image.new("RGB", (len(arrays) * (width + _GAP), height), (128, 128, 128))
    for number, array in enumerate(arrays):
        whole.paste(Image.fromarray(array).resize((width, height)), (number * (width + _GAP), 0))
    return png(whole)
