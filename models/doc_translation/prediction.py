"""Translations of pages without references, or features of the encoders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch.nn import Module

from models.base import Prediction
from models.common import data_files
from models.common.data_files import OnBad, existing_path, unknown_format
from models.common.pictures import count_pages, open_picture
from models.common.predictions import DistinctNames, features_file, input_errors, printable
from models.doc_translation import formats, images
from models.doc_translation.config import Size
from models.doc_translation.decoding import beam_search, greedy, texts
from models.doc_translation.masked_pages import MaskedEncoders
from models.doc_translation.readers import pairs
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


def read_images(path: Path) -> list[ImagePage]:
    """The pages of an image, or of all images of a folder at any depth, by name.

    Reads only heads of images. A TIFF file may have several pages. Raises DataError.
    """
    pages: list[ImagePage] = []
    for file in filter(is_image, data_files.files(path)):
        name = (file.relative_to(path) if file != path else Path(file.name)).with_suffix("")
        count = count_pages(file)
        if count == 1:
            pages.append(ImagePage(file, name.as_posix()))
        else:
            pages += [ImagePage(file, f"{name.as_posix()} page {n + 1}", n) for n in range(count)]
    return pages


class UnlabeledPage(Protocol):
    """A page without its translation."""

    @property
    def name(self) -> str:
        """Name of the page."""

    def image(self) -> Image.Image:
        """Image of the page. Raises DataError."""


@dataclass(frozen=True)
class Decoding:
    """How translations are generated."""

    vocabulary: Vocabulary
    count: int
    """Maximum number of tokens."""
    beams: int


def read(path: Path, layout: pairs.Layout, on_bad: OnBad) -> Sequence[UnlabeledPage]:
    """The pages of an image, a folder of images or a file of pairs. Disk access; raises DataError.

    `layout`: rendering of the paragraphs of a file of pairs, whose translations are not read.
    """
    allowed = (IMAGES, formats.PAIRS)
    with input_errors():
        source = existing_path(str(path), "; ".join(allowed))
        pages: Sequence[UnlabeledPage] = read_images(source)
        is_known = formats.may_be_pairs(source) or formats.recognize(source) == formats.PAIRS
        if not pages and source.is_file() and is_known:
            collection = pairs.read(source, layout, on_bad, keeps_duplicates=True)
            pages = collection.pages
        if not pages:
            raise unknown_format(path, allowed)
    return pages


@torch.no_grad()
def translate(
    model: Module, image: Image.Image, size: Size, decoding: Decoding, device: torch.device
) -> str:
    """The translation of a page as Markdown, by beam search or, for one beam, greedy."""
    vocabulary, count, beams = decoding.vocabulary, decoding.count, decoding.beams
    memory = model(*_views(image, size, device))
    if beams == 1:
        tokens = greedy(model, memory, count, vocabulary, stops_early=True)
    else:
        tokens = beam_search(model, memory, count, vocabulary, beams, stops_early=True)
    return texts(tokens, vocabulary)[0]


def _views(
    image: Image.Image, size: Size, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    whole = images.global_batch([images.global_view(image, size.whole.pixels)])
    local = images.local_batch([images.local_view(image, *size.local.pixels)])
    return whole.to(device), local.to(device)


@torch.no_grad()
def features(
    model: Module, pages: Sequence[UnlabeledPage], size: Size, device: torch.device
) -> Iterator[Prediction]:
    """The features of each page by the local encoder, and those by the global one beside them.

    Disk access.
    """
    assert isinstance(model, MaskedEncoders)
    names = DistinctNames()
    for page in pages:
        with input_errors():
            image = page.image()
        whole, local = (x.float().cpu().numpy() for x in model.encode(*_views(image, size, device)))
        more = {"global_features": whole, "global_mean": whole.mean(1)}
        name = names.of(page.name)
        yield features_file(name, page.name, [page.name], local, more=more)


def predict(
    model: Module,
    pages: Sequence[UnlabeledPage],
    size: Size,
    decoding: Decoding,
    device: torch.device,
) -> Iterator[Prediction]:
    """The translation of each page, as text and as a Markdown file. Disk access."""
    names = DistinctNames()
    for page in pages:
        with input_errors():
            image = page.image()
        text = translate(model, image, size, decoding, device)
        yield Prediction(names.of(page.name), printable(text), {".md": f"{text}\n".encode()})
