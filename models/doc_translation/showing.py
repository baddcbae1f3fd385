"""What is shown of a model, in reports and for files: `task` is the one of the family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import Module

from gearshift.models.base import Picture, Prediction, Predictions
from gearshift.models.common.data_files import existing_path, known_files
from gearshift.models.common.family import evaluating, printable
from gearshift.models.common.pictures import count_pages, open_picture
from gearshift.models.common.predictions import (
    DistinctNames,
    features_file,
    few_samples,
    input_errors,
    placed,
    png,
)
from gearshift.models.doc_translation import images
from gearshift.models.doc_translation.decoding import beam_search, texts
from gearshift.models.doc_translation.metric import bleu_of, steds
from gearshift.models.doc_translation.readers.page import Page

SHOWN = 3
TOKENS = 96
"""Maximum tokens per translation in a report; each costs a forward pass."""
_SIZE = 480, 640
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
IMAGES = f"images ({', '.join(SUFFIXES)})"
Samples = Sequence[Mapping[str, Any]]


def _written(
    task: Any,
    model: Module,
    samples: Samples,
    count: int,
) -> list[str]:
    batch = placed(task.collate(samples), task.context.device)
    memory = model(batch["page_global"], batch["page_local"])
    return texts(
        beam_search(
            model,
            memory,
            count,
            task.vocabulary,
        ),
        task.vocabulary,
    )


def preview(task: Any, model: Module) -> str:
    """Reference translation of the first page, "│" and the generated one. Collective."""
    (sample,) = few_samples(task.data("val"), 1)
    with evaluating(model):
        (written,) = _written(
            task,
            model,
            [sample],
            task.count,
        )
    return f"{printable(sample['reference'])}│{printable(written)}"


def pictures(task: Any) -> list[Picture]:
    """Pictures of a few training pages. May read from disk."""
    samples = few_samples(task.data("train"), SHOWN)
    return [_picture(sample, f"page-{number}") for number, sample in enumerate(samples)]


def _picture(sample: Mapping[str, Any], name: str) -> Picture:
    pixels = np.ascontiguousarray(
        sample["views"][1]
        .transpose(
            1,
            2,
            0,
        )
        .squeeze()
    )
    caption = f"{_name(sample)}, input of the local encoder"
    return Picture(
        name,
        caption,
        png(Image.fromarray(pixels).resize(_SIZE)),
    )


def predictions(task: Any, model: Module) -> Predictions:
    """Translate pages spread over validation, up to TOKENS tokens each. Collective.

    References are cut to the same number of tokens for BLEU and STEDS.
    """
    count = min(task.count, TOKENS)
    bleu = bleu_of(task.collection.language)
    samples = few_samples(task.data("val"), SHOWN)
    translations = _written(
        task,
        model,
        samples,
        count,
    )
    rows = []
    shown = []
    for sample, written in zip(
        samples,
        translations,
        strict=True,
    ):
        reference = task.vocabulary.decode(sample["labels"][:count].tolist())
        cells = (
            _name(sample),
            printable(reference),
            printable(written),
            bleu.score(bleu.counts([written], [reference])),
            steds(written, reference),
        )
        rows.append(cells)
        shown.append(_picture(sample, f"page_{len(rows)}"))
    return Predictions(
        ("page", "reference", "translation", "bleu", "steds"),
        rows,
        shown,
    )


def _name(sample: Mapping[str, Any]) -> str:
    document, page = sample["meta"]
    return f"{page} of {document}"


def recognize(path: Path) -> str | None:
    """IMAGES for a file with the suffix of one; None for others."""
    return IMAGES if path.suffix.lower() in SUFFIXES and path.is_file() else None


def read(path: Path) -> list[Page]:
    """The pages of an image or a folder of images, without texts. Disk access; raises DataError.

    Reads only heads of images; a TIFF file may have several pages.
    """
    with input_errors():
        source = existing_path(str(path), IMAGES)
        pages = []
        for file_name, (file, _) in known_files(
            source,
            recognize,
            (IMAGES,),
        ).items():
            title = Path(file_name).with_suffix("").as_posix()
            count = count_pages(file)
            for n in range(count):
                name = f"{title} page {n + 1}" if count > 1 else title
                pages.append(
                    Page(
                        title,
                        name,
                        partial(
                            open_picture,
                            file,
                            page=n,
                        ),
                        "",
                    )
                )
        return pages


@torch.no_grad()
def features(
    task: Any,
    model: Any,
    pages: Sequence[Page],
) -> Iterator[Prediction]:
    """The features of each page by the local encoder, and those by the global one beside them.

    Disk access.
    """
    names = DistinctNames()
    for page in pages:
        page_global, page_local = _views(task, page)
        whole = model.global_encoder(page_global).last_hidden_state.float().cpu().numpy()
        local = model.local_encoder(page_local).last_hidden_state.float().cpu().numpy()
        whole = whole[:, 1:]  # the first token belongs to no patch
        yield features_file(
            names.of(page.name),
            page.name,
            [page.name],
            local,
            more={"global_features": whole, "global_mean": whole.mean(1)},
        )


@torch.no_grad()
def translations(
    task: Any,
    model: Module,
    pages: Sequence[Page],
) -> Iterator[Prediction]:
    """The translation of each page, as text and as a Markdown file. Disk access."""
    names = DistinctNames()
    vocabulary = task.vocabulary
    for page in pages:
        memory = model(*_views(task, page))
        tokens = beam_search(
            model,
            memory,
            task.count,
            vocabulary,
            task.beams,
            stops_early=True,
        )
        (text,) = texts(tokens, vocabulary)
        yield Prediction(
            names.of(page.name),
            printable(text),
            {".md": f"{text}\n".encode()},
        )


def _views(task: Any, page: Page) -> list[torch.Tensor]:
    with input_errors():
        image = page.image()
    views = images.batches([images.views(image, task.size)])
    return [view.to(task.context.device) for view in views]
