"""A folder in the DoTA layout: images of pages, and their texts in two or more languages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError

from models.base import DataError, SplitName
from models.common.data_files import BadRecords, OnBad
from models.doc_translation.readers.page import Collection, bleu_tokenizer

SPLIT_FILE = "split_dataset.json"
LISTS: Mapping[str, SplitName] = {
    "train_name_list": "train",
    "valid_name_list": "val",
    "test_name_list": "test",
}
IMAGES = "imgs"
_NUMBERED = re.compile(r"(.+)[_-](\d+)")
_HEAD, _TAIL = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
Split = Literal["file", "article"]
Names = Mapping[SplitName, list[str]]


def article(name: str) -> str:
    """What a page is part of: its name without the number of the page at its end."""
    match = _NUMBERED.fullmatch(name)
    return match[1] if match else name


@dataclass(frozen=True)
class DotaPage:
    """A page of the folder `root`; both its files are read when they are asked for."""

    root: Path
    name: str
    language: str

    @property
    def document(self) -> str:
        """The article."""
        return article(self.name)

    def image(self) -> Image.Image:
        """See Page. Reads from disk."""
        path = self.root / IMAGES / f"{self.name}.png"
        try:
            with Image.open(path) as found:
                found.load()
                return found
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            # By kind of fault: cut off, no image, a broken chunk, an image of absurd size.
            raise DataError(
                f"'{path}' is no image that can be read: {error}",
                where="data.path",
                allowed="a PNG image",
                fix=f"repair it, or take its name out of {SPLIT_FILE}",
            ) from None

    def target(self) -> str:
        """See Page. Reads from disk."""
        path = self.root / f"{self.language}_mmd" / f"{self.name}.mmd"
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"'{path}' cannot be read: {error}", where="data.path", allowed="a UTF-8 text"
            ) from None


def read(root: Path, language: str, split: Split, on_bad: OnBad) -> Collection:
    """The pages that the split file names and that have an image and a text.

    Pages without one of them, and those that no list names, are left out and listed; an image that
    is no whole PNG is a fault. Reads from disk, of images their ends alone. Raises DataError.
    """
    names = _names(root)
    if split == "file":
        _check_articles(names, root / SPLIT_FILE)
    _check_folders(root, language)
    left_out, faults = _unnamed(root, names), BadRecords("pages")
    pages: list[DotaPage] = []
    for name in sorted({name for listed in names.values() for name in listed}):
        page = DotaPage(root, name, language)
        if lacks := _lacks(page):
            left_out.append((name, lacks))
        elif fault := _broken(root / IMAGES / f"{name}.png"):
            faults.add(f"{IMAGES}/{name}.png", fault)
        else:
            pages.append(page)
    skipped = faults.finish(on_bad, len(pages))
    left_out += faults.rows
    if not pages:
        raise DataError(
            f"'{root}' has no page with both an image and a text in '{language}'",
            where=f"{len(left_out)} pages were left out, the first {left_out[:1]}",
            allowed=f"{IMAGES}/NAME.png and {language}_mmd/NAME.mmd for names in {SPLIT_FILE}",
        )
    given = None
    if split == "file":
        kept = {page.name for page in pages}
        given = {
            side: sorted({article(name) for name in listed if name in kept})
            for side, listed in names.items()
        }
    counts = {"skipped_pages": skipped, "left_out_pages": len(left_out) - skipped}
    return Collection(str(root), pages, bleu_tokenizer(language), given, left_out, counts)


def _names(root: Path) -> Names:
    """The names of each split. Raises DataError where the file does not say them."""
    path = root / SPLIT_FILE
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _bad_split(path, f"cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise _bad_split(path, f"is a {type(found).__name__}, not an object")
    names: dict[SplitName, list[str]] = {}
    for key, side in LISTS.items():
        listed = found.get(key)
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise _bad_split(path, f"has no list of names under '{key}'")
        if unsafe := [name for name in listed if Path(name).name != name]:
            raise _bad_split(path, f"has a name that is no file's: {unsafe[0]!r}")
        names[side] = listed
    return names


def _bad_split(path: Path, wrong: str) -> DataError:
    return DataError(
        f"'{path}' {wrong}", where="data.path", allowed=f"lists of names: {', '.join(LISTS)}"
    )


def _check_articles(names: Names, path: Path) -> None:
    """Raises DataError where pages of one article are on two sides."""
    sides: dict[str, set[str]] = {}
    for side, listed in names.items():
        for name in listed:
            sides.setdefault(article(name), set()).add(side)
    shared = sorted(name for name, found in sides.items() if len(found) > 1)
    if shared:
        raise DataError(
            f"{len(shared)} of {len(sides)} articles have pages on two sides of the split, such as "
            f"'{shared[0]}' in {' and '.join(sorted(sides[shared[0]]))}",
            where=str(path),
            allowed="each article in one list: a model that saw its other pages is not tested by it",
            fix="--set data.split=article",
        )


def _check_folders(root: Path, language: str) -> None:
    there = sorted(path.name for path in root.glob("*_mmd") if path.is_dir())
    if f"{language}_mmd" not in there:
        raise DataError(
            f"'{root}' has no texts in '{language}'",
            where=f"data.target, looked for {root / f'{language}_mmd'}",
            allowed=", ".join(name.removesuffix("_mmd") for name in there) or f"{language}_mmd",
        )


def _unnamed(root: Path, names: Names) -> list[tuple[str, str]]:
    named = {name for listed in names.values() for name in listed}
    there = sorted(path.stem for path in (root / IMAGES).glob("*.png"))
    return [(name, f"not in {SPLIT_FILE}") for name in there if name not in named]


def _lacks(page: DotaPage) -> str | None:
    """What a page is without; None: it has both."""
    image = page.root / IMAGES / f"{page.name}.png"
    text = page.root / f"{page.language}_mmd" / f"{page.name}.mmd"
    for path in (image, text):
        if not path.is_file():
            return f"no {path.parent.name}/{path.name}"
    return f"{text.parent.name}/{text.name} is empty" if text.stat().st_size < 2 else None


def _broken(path: Path) -> str | None:
    """What is wrong with an image as far as its two ends tell; None: nothing."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_HEAD))
            size = file.seek(0, 2)
            file.seek(max(0, size - len(_TAIL)))
            tail = file.read()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if head != _HEAD:
        return "empty" if not size else "no PNG image"
    return None if tail == _TAIL else f"cut off after {size} bytes"
