"""What is shown of a model, in reports and for files: `task` is the one of the family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import Module

from gearshift.models.base import Picture, Prediction, Predictions
from gearshift.models.common.data_files import existing_path, files, known_files
from gearshift.models.common.family import ENCODER, printable
from gearshift.models.common.pictures import count_pages, open_picture
from gearshift.models.common.predictions import (
    DistinctNames,
    features_file,
    few_samples,
    input_errors,
    passed_over,
    placed,
    png,
)
from gearshift.models.doc_translation import images
from gearshift.models.doc_translation.decoding import beam_search, texts
from gearshift.models.doc_translation.metric import steds
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
    """Translations of `samples` by greedy decoding."""
    batch = placed(task.collate(samples), task.context.device)
    memory = model(batch["page_global"], batch["page_local"])
    tokens = beam_search(model, memory, count, task.vocabulary)
    return texts(tokens, task.vocabulary)


def preview(task: Any, model: Module) -> str:
    """Reference translation of the first page, "│" and the generated one. Collective."""
    samples = few_samples(task.data("val"), 1)
    (written,) = _written(task, model, samples, task.count)
    return f"{printable(samples[0]['reference'])}│{printable(written)}"


def pictures(task: Any) -> list[Picture]:
    """Pictures of a few training pages. May read from disk."""
    samples = few_samples(task.data("train"), SHOWN)
    return [_picture(sample, number) for number, sample in enumerate(samples, start=1)]


def _picture(sample: Mapping[str, Any], number: int) -> Picture:
    page = Image.fromarray(sample["views"][1][0])
    caption = f"{_name(sample)}, input of the local encoder"
    return Picture(f"page_{number}", caption, png(page.resize(_SIZE)))


def predictions(task: Any, model: Module) -> Predictions:
    """Translate pages spread over validation, up to TOKENS tokens each. Collective.

    References are cut to the same number of tokens for BLEU and STEDS.
    """
    count = min(task.count, TOKENS)
    bleu = task.bleu()
    samples = few_samples(task.data("val"), SHOWN)
    translations = _written(task, model, samples, count)
    rows = []
    shown = []
    for number, sample in enumerate(samples):
        written = translations[number]
        reference = task.vocabulary.decode(sample["labels"][:count].tolist())
        cells = (
            _name(sample),
            printable(reference),
            printable(written),
            bleu.score(bleu.counts([written], [reference])),
            steds(written, reference),
        )
        rows.append(cells)
        shown.append(_picture(sample, number + 1))
    return Predictions(("page", "reference", "translation", "bleu", "steds"), rows, shown)


def _name(sample: Mapping[str, Any]) -> str:
    document, page = sample["meta"]
    return f"{page} of {document}"


def recognize(path: Path) -> str | None:
    """IMAGES for a file with the suffix of one; None for others."""
    return IMAGES if path.suffix.lower() in SUFFIXES else None


def read(path: Path) -> list[Page]:
    """The pages of an image or a folder of images, without texts. Disk access; raises DataError.

    Reads only heads of images; a TIFF file may have several pages.
    """
    pages = []
    with input_errors():
        source = existing_path(str(path), IMAGES)
        for file_name, (file, _) in known_files(source, recognize, (IMAGES,)).items():
            title = Path(file_name).with_suffix("").as_posix()
            count = count_pages(file)
            for n in range(count):
                name = f"{title} page {n + 1}" if count > 1 else title
                pages.append(Page(title, name, partial(open_picture, file, page=n), str))
    return pages


@torch.no_grad()
def predict(task: Any, model: Any, path: Path) -> Iterator[Prediction]:
    """The translation of each page of the images at `path`, as text and as a Markdown file.

    Of an encoder the features by the local one, and beside them those by the global one. Disk
    access; raises DataError.
    """
    names = DistinctNames()
    for page in read(path):
        with input_errors():
            views = images.views(page.image(), task.size)
        whole, local = (view.to(task.context.device) for view in images.batches([views]))
        name = names.of(page.name)
        if task.stage == ENCODER:
            yield _features(model, name, page.name, whole, local)
            continue
        tokens = beam_search(
            model,
            model(whole, local),
            task.count,
            task.vocabulary,
            task.beams,
            stops_early=True,
        )
        (text,) = texts(tokens, task.vocabulary)
        yield Prediction(name, printable(text), {".md": f"{text}\n".encode()})
    yield from passed_over(path, filter(recognize, files(path)))


def _features(
    model: Any,
    name: str,
    title: str,
    whole: torch.Tensor,
    local: torch.Tensor,
) -> Prediction:
    of_local = model.local_encoder(local).last_hidden_state
    of_global = model.global_encoder(whole).last_hidden_state[:, 1:]  # the first has no patch
    features = of_global.float().cpu().numpy()
    return features_file(
        name,
        title,
        [title],
        of_local.float().cpu().numpy(),
        more={"global_features": features, "global_mean": features.mean(1)},
    )
