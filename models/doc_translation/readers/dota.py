"""Reader of the DoTA layout: page images with texts in two or more languages."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gearshift.models.base import DataError, Groups, SplitName
from gearshift.models.common.data_files import copies, files
from gearshift.models.common.data_reports import BadRecords, OnBad
from gearshift.models.common.pictures import open_picture, too_large
from gearshift.models.common.text_file import TextFile, parse_json
from gearshift.models.doc_translation.readers.page import Collection, Page, without_number

SPLIT_FILE = "split_dataset.json"
LISTS: Mapping[str, SplitName] = {
    "train_name_list": "train",
    "valid_name_list": "val",
    "test_name_list": "test",
}
IMAGES = "imgs"
SOURCES = "en_mmd"
_HEAD = b"\x89PNG\r\n\x1a\n"
_TAIL = b"IEND\xaeB`\x82"
_SIZE_AT = 16
"""Byte of width and height, 4 bytes each. Source: Portable Network Graphics, ISO 15948, 11.2.2."""
_FIX = f"fetch it again or save it as PNG, or remove its name from {SPLIT_FILE}"
Split = Literal["file", "article"]
Names = dict[str, list[SplitName]]
"""The splits of each page."""


def read(
    root: Path,
    language: str,
    split: Split,
    on_bad: OnBad,
) -> Collection:
    """Read the pages of the split file that have an image and, in `language`, a text.

    Pages without one of them, or without an entry in the split file, are skipped and listed. An
    image that is not a complete PNG is an invalid page. Reads only the two ends of images. Raises
    DataError.
    """
    files(root)  # refuses pipes and devices before anything is read
    names = _names(root / SPLIT_FILE)
    if split == "file":  # another split is by article itself
        _check_articles(names, root / SPLIT_FILE)
    folder = f"{language}_mmd"
    if not (root / folder).is_dir():
        languages = sorted(path.name.removesuffix("_mmd") for path in root.glob("*_mmd"))
        raise DataError(
            f"'{root}' has no texts in '{language}'",
            where=f"data.target, {root / folder}",
            allowed=", ".join(languages) or folder,
        )

    bad_records = BadRecords("pages")
    images = {path.stem for path in files(root / IMAGES) if path.suffix == ".png"}
    left_out = [(name, f"not in {SPLIT_FILE}") for name in sorted(images - names.keys())]
    notes: list[str] = []
    pages = []
    for name in sorted(names):
        image = root / IMAGES / f"{name}.png"
        text = root / folder / f"{name}.mmd"
        missing = _missing(root, image, text)
        if missing:
            left_out.append((name, missing))
            continue
        problem = _png_error(image)
        if problem:
            bad_records.add(f"{IMAGES}/{name}.png", problem, _FIX)
            continue
        english = root / SOURCES / f"{name}.mmd"
        source = None
        if text != english and english.is_file():
            source = partial(_text, english, notes)
        page = Page(
            without_number(name),
            name,
            partial(open_picture, image, _FIX),
            partial(_text, text, notes),
            source,
        )
        pages.append(page)

    # An image under two names would be trained on and validate.
    original_of = copies({page.name: root / IMAGES / f"{page.name}.png" for page in pages})
    left_out += [(name, f"its image is that of {first}") for name, first in original_of.items()]
    pages = [page for page in pages if page.name not in original_of]
    skipped = bad_records.finish(on_bad, len(pages))
    left_out += bad_records.rows
    if not pages:
        raise DataError(
            f"'{root}' has no page with an image and a text in '{language}'",
            where=f"{len(left_out)} skipped pages, the first: {left_out[:1]}",
            allowed=f"{IMAGES}/NAME.png and {folder}/NAME.mmd for names in {SPLIT_FILE}",
        )
    return Collection(
        str(root),
        pages,
        language,
        splits=_documents(pages, names) if split == "file" else None,
        skipped=left_out,
        counts={"skipped_pages": skipped, "left_out_pages": len(left_out) - skipped},
        notes=notes,
    )


def _missing(root: Path, image: Path, text: Path) -> str:
    """What a page lacks, so that it is left out; empty: nothing."""
    for path in (image, text):
        if not path.is_file():
            return f"no {path.relative_to(root)}"
    if text.stat().st_size < 2:
        return f"{text.relative_to(root)} is empty"
    return ""


def _documents(pages: Sequence[Page], names: Names) -> Groups:
    """The documents of each split, which is that of their last page."""
    sides = {page.document: names[page.name][0] for page in pages}
    documents = {}
    for side in LISTS.values():
        documents[side] = sorted(name for name, other in sides.items() if other == side)
    return documents


def _text(path: Path, notes: list[str]) -> str:
    """A text; `notes`: encodings that were assumed so far, of all pages."""
    file = TextFile(path)
    text = "".join(file.chunks()).strip()
    if file.note and not any(note.endswith(file.note) for note in notes):
        notes.append(f"{path.name} and others: {file.note}")
    return text


def _names(path: Path) -> Names:
    """By the split file. Raises DataError."""
    names: Names = {}
    try:
        content: Any = parse_json("".join(TextFile(path).chunks()))
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}, not an object")
        for key, side in LISTS.items():
            listed = content.get(key)
            if not isinstance(listed, list) or {*map(type, listed)} - {str}:
                raise ValueError(f"it has no list of names under '{key}'")
            for name in listed:
                if Path(name).name != name:  # such as ../../x
                    raise ValueError(f"it has an invalid file name: {name!r}")
                names.setdefault(name, []).append(side)
    except ValueError as error:
        raise DataError(
            f"'{path}' cannot be used: {error}",
            where="data.path",
            allowed=f"lists of names: {', '.join(LISTS)}",
        ) from None
    return names


def _check_articles(names: Names, path: Path) -> None:
    """Raises DataError if pages of one article are in two splits."""
    articles = defaultdict(set)
    for name, splits in names.items():
        articles[without_number(name)].update(splits)
    shared = sorted(article for article, splits in articles.items() if len(splits) > 1)
    if shared:
        raise DataError(
            f"{len(shared)} of {len(articles)} articles have pages in two splits, "
            f"such as '{shared[0]}'",
            where=str(path),
            allowed="each article in one split, so that evaluation uses unseen articles only",
            fix="--set data.split=article",
        )


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
    if not head.startswith(_HEAD):
        return "not a PNG image" if size else "empty"
    if len(head) < _SIZE_AT + 8 or tail != _TAIL:
        return f"truncated after {size} bytes"
    return too_large(*struct.unpack_from(">II", head, _SIZE_AT))
