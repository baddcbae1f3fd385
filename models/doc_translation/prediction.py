"""Translations of pages without references, or features of the encoders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch.nn import Module

from models.base import Prediction
from models.common import data_files
from models.common.data_files import existing_path, unknown_format
from models.common.pictures import count_pages, open_picture
from models.common.predictions import DistinctNames, features_file, input_errors, printable
from models.doc_translation import images
from models.doc_translation.config import Size
from models.doc_translation.decoding import beam_search, texts
from models.doc_translation.model import DocTranslator
from models.doc_translation.vocabulary import Vocabulary

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
IMAGES = f"images ({', '.join(SUFFIXES)})"


@dataclass(frozen=True)
class ImagePage:
    """A page of an image file; read on access."""

    path: Path
    name: str
    number: int = 0
    """Page within a TIFF file."""

    def image(self) -> Image.Image:
        return open_picture(self.path, page=self.number)


def is_image(path: Path) -> bool:
    """Whether a file has the suffix of an image."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read(path: Path) -> list[ImagePage]:
    """The pages of an image or a folder of images. Disk access; raises DataError.

    Reads only heads of images; a TIFF file may have several pages.
    """
    with input_errors():
        source = existing_path(str(path), IMAGES)
        pages: list[ImagePage] = []
        for file in filter(is_image, data_files.files(source)):
            name = file.relative_to(source) if file != source else Path(file.name)
            title, count = name.with_suffix("").as_posix(), count_pages(file)
            titles = [f"{title} page {n + 1}" for n in range(count)] if count > 1 else [title]
            pages += [ImagePage(file, title, n) for n, title in enumerate(titles)]
        if not pages:
            raise unknown_format(path, (IMAGES,))
        return pages


@torch.no_grad()
def features(
    model: Module, pages: Sequence[ImagePage], size: Size, device: torch.device
) -> Iterator[Prediction]:
    """The features of each page by the local encoder, and those by the global one beside them.

    Disk access.
    """
    assert isinstance(model, DocTranslator)
    names = DistinctNames()
    for page in pages:
        views = zip((model.global_encoder, model.local_encoder), _views(page, size, device), strict=True)
        whole, local = (encoder(x).last_hidden_state.float().cpu().numpy() for encoder, x in views)
        whole = whole[:, 1:]  # the first token belongs to no patch
        more = {"global_features": whole, "global_mean": whole.mean(1)}
        yield features_file(names.of(page.name), page.name, [page.name], local, more=more)


@torch.no_grad()
def predict(
    model: Module,
    pages: Sequence[ImagePage],
    size: Size,
    vocabulary: Vocabulary,
    count: int,
    beams: int,
    device: torch.device,
) -> Iterator[Prediction]:
    """The translation of each page in at most `count` tokens, as text and as a Markdown file.

    Disk access.
    """
    names = DistinctNames()
    for page in pages:
        memory = model(*_views(page, size, device))
        tokens = beam_search(model, memory, count, vocabulary, beams, stops_early=True)
        (text,) = texts(tokens, vocabulary)
        yield Prediction(names.of(page.name), printable(text), {".md": f"{text}\n".encode()})


def _views(page: ImagePage, size: Size, device: torch.device) -> list[torch.Tensor]:
    with input_errors():
        image = page.image()
    return [view.to(device) for view in images.batches([images.views(image, size)])]
