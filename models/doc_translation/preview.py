"""Previews: generated translations, and pictures of pages beside texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import Module

from models.base import Batch, Picture, Predictions
from models.common.predictions import FixedDraws, evaluating, few_samples, placed, png, printable, scores_of
from models.doc_translation import images, masked_pages
from models.doc_translation.dataset import Pages, PageSample, collate
from models.doc_translation.decoding import beam_search, texts
from models.doc_translation.masked_pages import MaskedPages, page_of, patches
from models.doc_translation.metric import Bleu, steds
from models.doc_translation.readers.page import PageBlock, Sheet, draw, missing_characters

PICTURES = 3
SHOWN = 3
TOKENS = 96
"""Maximum tokens per translation; each costs a forward pass."""
_WIDTH, _HEIGHT, _GAP = 480, 640, 4
_LONGEST = 1200
"""Characters of a translation that fit beside its page."""
_PICTURE_WIDTH, _MASKED_WIDTH = 960, 640
"""Width of a picture in pixels, less for masked patches, whose noise is hard to compress."""
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


def masked_pictures(pages: MaskedPages) -> Sequence[Picture]:
    """A few pages beside what the local encoder sees of them. May read from disk."""
    page_pictures = []
    for number in range(min(PICTURES, len(pages))):
        sample = pages.sample(number, FixedDraws())
        batch = masked_pages.collate([sample])
        caption = f"{sample.name} of {sample.document}, input of the local encoder, and masked"
        image = _side_by_side([batch["page_local"][0], _visible(batch, 0, pages)])
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
    rows: list[tuple[str | float, ...]] = []
    pictures = []
    for row, sample in enumerate(samples):
        scores = scores_of(metric, guesses, batch, row)
        name = f"{sample.name} of {sample.document}"
        rows.append((name, scores["val_masked_r2_global"], scores["val_masked_r2_local"]))
        page = batch["page_local"][row]
        views = [page, _visible(batch, row, pages), _filled(page, guesses[1], batch, row, pages)]
        caption = f"{name}: page, visible patches, predicted patches"
        pictures.append(Picture(f"page_{row + 1}", caption, _side_by_side(views)))
    return Predictions(("page", "global r2", "local r2"), rows, pictures)


def _visible(batch: Batch, row: int, pages: MaskedPages) -> Tensor:
    """What the local encoder sees of a page, [3, height, width]; masked patches are grey."""
    page = batch.get("seen_local", batch["page_local"])[row]
    return _filled(page, torch.zeros_like(batch["mask_local"])[..., None], batch, row, pages)


def _filled(page: Tensor, values: Tensor, batch: Batch, row: int, pages: MaskedPages) -> Tensor:
    """`page` [3, height, width] with `values` [batch, patch, pixel] in its masked patches."""
    size, mask = pages.size.local, batch["mask_local"][row]
    cut = patches(page[None].clone(), size.patch)
    cut[0, mask] = values[row, mask].to(cut.dtype)
    return page_of(cut, size.patch, size.pixels[1])[0]


def _side_by_side(views: Sequence[Tensor]) -> bytes:
    """PNG of local views [3, height, width] beside each other."""
    arrays = [images.pixels_of_local(view) for view in views]
    width = _MASKED_WIDTH // len(arrays) - _GAP
    height = round(width * arrays[0].shape[0] / arrays[0].shape[1])
    whole = Image.new("RGB", (len(arrays) * (width + _GAP), height), _GREY)
    for number, array in enumerate(arrays):
        whole.paste(Image.fromarray(array).resize((width, height)), (number * (width + _GAP), 0))
    return png(whole)
