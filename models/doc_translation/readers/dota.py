"""Reader of the DoTA layout: page images with texts in two or more languages."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from models.base import DataError, SplitName
from models.common.data_files import BadRecords, OnBad, files
from models.common.pictures import open_picture, too_large
from models.common.text_file import TextFile, parse_json
from models.doc_translation.readers.page import Collection, bleu_tokenizer, without_number

SPLIT_FILE = "split_dataset.json"
LISTS: Mapping[str, SplitName] = {
    "train_name_list": "train",
    "valid_name_list": "val",
    "test_name_list": "test",
}
IMAGES = "imgs"
_HEAD, _TAIL = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_SIZE_AT = 16
"""Byte of width and height, 4 bytes each. Source: Portable Network Graphics, ISO 15948, 11.2.2."""
_FIX = f"fetch it again or save it as PNG, or remove its name from {SPLIT_FILE}"
Split = Literal["file", "article"]
Names = Mapping[SplitName, list[str]]


@dataclass(frozen=True)
class DotaPage:
    """A page of the folder `root`; its files are read on access."""

    root: Path
    name: str
    language: str
    notes: list[str]
    """Encodings that were assumed of texts, of all pages; filled on access."""

    @property
    def document(self) -> str:
        """Article of the page."""
        return without_number(self.name)

    def image(self) -> Image.Image:
        path = self.root / IMAGES / f"{self.name}.png"
        return open_picture(path, _FIX)

    def target(self) -> str:
        file = TextFile(self.root / f"{self.language}_mmd" / f"{self.name}.mmd")
        text = "".join(file.chunks()).strip()
        if file.note and not any(note.endswith(file.note) for note in self.notes):
            self.notes.append(f"{file.path.name} and others: {file.note}")
        return text


def read(root: Path, language: str, split: Split, on_bad: OnBad) -> Collection:
    """Read the pages of the split file that have an image and, in `language`, a text.

    Pages without one of them, or without an entry in the split file, are skipped and listed. An
    image that is not a complete PNG is an invalid page. Reads only the two ends of images. Raises
    DataError.
    """
    files(root)  # refuses pipes and devices before anything is read
    names = _names(root)
    if split == "file":
        _check_articles(names, root / SPLIT_FILE)
    there = sorted(path.name.removesuffix("_mmd") for path in root.glob("*_mmd") if path.is_dir())
    if language not in there:
        raise DataError(
            f"'{root}' has no texts in '{language}'",
            where=f"data.target, {root / f'{language}_mmd'}",
            allowed=", ".join(there) or f"{language}_mmd",
        )
    images = {path.stem for path in files(root / IMAGES) if path.suffix == ".png"}
    named = {name for listed in names.values() for name in listed}
    skipped_pages = [(name, f"not in {SPLIT_FILE}") for name in sorted(images - named)]
    bad_records = BadRecords("pages")
    pages: list[DotaPage] = []
    notes: list[str] = []
    for name in sorted(named):
        page = DotaPage(root, name, language, notes)
        if missing := _missing_file(page):
            skipped_pages.append((name, missing))
        elif problem := _png_error(root / IMAGES / f"{name}.png"):
            bad_records.add(f"{IMAGES}/{name}.png", problem, _FIX)
        else:
            pages.append(page)
    skipped = bad_records.finish(on_bad, len(pages))
    skipped_pages += bad_records.rows
    if not pages:
        raise DataError(
            f"'{root}' has no page with an image and a text in '{language}'",
            where=f"{len(skipped_pages)} skipped pages, the first: {skipped_pages[:1]}",
            allowed=f"{IMAGES}/NAME.png and {language}_mmd/NAME.mmd for names in {SPLIT_FILE}",
        )
    given = None
    if split == "file":
        page_names = {page.name for page in pages}
        given = {
            side: sorted({without_number(name) for name in listed if name in page_names})
            for side, listed in names.items()
        }
    counts = {"skipped_pages": skipped, "left_out_pages": len(skipped_pages) - skipped}
    return Collection(str(root), pages, bleu_tokenizer(language), given, skipped_pages, counts, notes)


def _names(root: Path) -> Names:
    """Page names of each split from the split file. Raises DataError."""
    path, names = root / SPLIT_FILE, dict[SplitName, list[str]]()
    try:
        content: Any = parse_json("".join(TextFile(path).chunks()))
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}, not an object")
        for key, side in LISTS.items():
            listed = content.get(key)
            if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
                raise ValueError(f"it has no list of names under '{key}'")
            if unsafe := [name for name in listed if Path(name).name != name]:
                raise ValueError(f"it has an invalid file name: {unsafe[0]!r}")
            names[side] = listed
    except ValueError as error:
        raise DataError(
            f"'{path}' cannot be used: {error}",
            where="data.path",
            allowed=f"lists of names: {', '.join(LISTS)}",
        ) from None
    return names


def _check_articles(names: Names, path: Path) -> None:
    """Raises DataError if pages of one article are in two splits."""
    sides: dict[str, set[str]] = {}
    for side, listed in names.items():
        for name in listed:
            sides.setdefault(without_number(name), set()).add(side)
    shared = sorted(name for name, splits in sides.items() if len(splits) > 1)
    if shared:
        raise DataError(
            f"{len(shared)} of {len(sides)} articles have pages in two splits, for example "
            f"'{shared[0]}' in {' and '.join(sorted(sides[shared[0]]))}",
            where=str(path),
            allowed="each article in one split, so that evaluation uses unseen articles only",
            fix="--set data.split=article",
        )


def _missing_file(page: DotaPage) -> str | None:
    """The missing or empty file of a page; None: it has both."""
    image = page.root / IMAGES / f"{page.name}.png"
    text = page.root / f"{page.language}_mmd" / f"{page.name}.mmd"
    for path in (image, text):
        if not path.is_file():
            return f"no {path.parent.name}/{path.name}"
    return f"{text.parent.name}/{text.name} is empty" if text.stat().st_size < 2 else None


def _png_error(path: Path) -> str | None:
    """Problem of a PNG file according to its two ends; None: no problem."""
    try:
        with path.open("rb") as file:
            head = file.read(_SIZE_AT + 8)
            size = file.seek(0, 2)
            file.seek(max(0, size - len(_TAIL)))
            tail = file.read()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if head[: len(_HEAD)] != _HEAD:
        return "empty" if not size else "not a PNG image"
    if len(head) < _SIZE_AT + 8 or tail != _TAIL:
        return f"truncated after {size} bytes"
    return too_large(*struct.unpack_from(">II", head, _SIZE_AT))
