"""Reader of the DoTA layout: page images with texts in two or more languages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from os import SEEK_END
from pathlib import Path
from typing import Any

from gearshift.models.base import DataError, SplitName
from gearshift.models.common.data_files import copies, files
from gearshift.models.common.data_reports import BadRecords, OnBad, library_errors
from gearshift.models.common.pictures import open_picture
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
_TAIL = b"IEND\xaeB`\x82"
"""End of a complete file. Source: Portable Network Graphics, ISO 15948, 11.2.5."""
_FIX = f"fetch it again or save it as PNG, or remove its name from {SPLIT_FILE}"


def read(
    root: Path,
    language: str,
    split: str,
    on_bad: OnBad,
) -> Collection:
    """Read the pages of the split file that have an image and, in `language`, a text.

    `split`: `file`, or `article` for none. Pages without an image or a text, or without an entry in
    the split file, are skipped and listed. An image that is not a complete PNG is an invalid page.
    Reads only the ends of images. Raises DataError.
    """
    files(root)  # refuses pipes and devices before anything is read
    names = _names(root / SPLIT_FILE)
    if split == "file":  # another split is by article itself
        _check_articles(names, root / SPLIT_FILE)
    folder = root / f"{language}_mmd"
    bad_records = BadRecords("pages")
    images = {path.stem: path for path in files(root / IMAGES) if path.suffix == ".png"}
    left_out = [(name, f"not in {SPLIT_FILE}") for name in sorted(images.keys() - names.keys())]
    notes: dict[str, str] = {}
    pages = []
    for name in sorted(names):
        image = root / IMAGES / f"{name}.png"
        text = folder / f"{name}.mmd"
        missing = _missing(root, image, text)
        if missing:
            left_out.append((name, missing))
            continue
        if not _is_complete(image):
            bad_records.add(f"{IMAGES}/{name}.png", "no complete PNG image", _FIX)
            continue
        source = None
        english = root / SOURCES / f"{name}.mmd"
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
    original_of = copies({page.name: images[page.name] for page in pages})
    left_out += [(name, f"its image is that of {first}") for name, first in original_of.items()]
    pages = [page for page in pages if page.name not in original_of]
    skipped = bad_records.finish(on_bad, len(pages))
    left_out += bad_records.rows
    if not pages:
        languages = sorted(path.name for path in root.glob("*_mmd"))
        raise DataError(
            f"'{root}' has no page with an image and a text in '{language}'",
            where=f"data.target; {len(left_out)} skipped pages, the first: {left_out[:1]}",
            allowed=f"{IMAGES}/NAME.png for names in {SPLIT_FILE}, and NAME.mmd in a folder of "
            f"{folder.name} or {', '.join(languages)}",
        )
    splits: dict[SplitName, list[str]] | None = None
    if split == "file":
        splits = {}
        for side in LISTS.values():
            documents = {page.document for page in pages if side in names[page.name]}
            splits[side] = sorted(documents)
    return Collection(
        str(root),
        pages,
        language,
        splits,
        skipped=left_out,
        counts={"skipped_pages": skipped, "left_out_pages": len(left_out) - skipped},
        notes=notes,
    )


def _missing(root: Path, *paths: Path) -> str:
    """What a page lacks, so that it is left out; empty: nothing."""
    for path in paths:
        if not path.is_file() or path.stat().st_size < 2:
            return f"{path.relative_to(root)} is missing or empty"
    return ""


def _text(path: Path, notes: dict[str, str]) -> str:
    """A text; `notes`: encodings that were assumed so far, of all pages, with a file of each."""
    file = TextFile(path)
    text = "".join(file.chunks()).strip()
    if file.note:
        notes.setdefault(file.note, path.name)
    return text


def _names(path: Path) -> dict[str, set[SplitName]]:
    """The splits of each page, by the split file. Raises DataError."""
    names: defaultdict[str, set[SplitName]] = defaultdict(set)
    allowed = f"an object of lists of names: {', '.join(LISTS)}"
    with library_errors(f"'{path}' cannot be used", "data.path", allowed=allowed):
        content: Any = parse_json("".join(TextFile(path).chunks()))
        for key, side in LISTS.items():
            for name in content[key]:
                if Path(name).name != name:  # such as ../../x
                    raise ValueError(f"it has an invalid file name: {name!r}")
                names[name].add(side)
    return names


def _check_articles(names: Mapping[str, set[SplitName]], path: Path) -> None:
    """Raises DataError if pages of one article are in two splits."""
    splits_of: defaultdict[str, set[SplitName]] = defaultdict(set)
    for name, splits in names.items():
        splits_of[without_number(name)] |= splits
    shared = sorted(article for article, splits in splits_of.items() if len(splits) > 1)
    if shared:
        raise DataError(
            f"{len(shared)} of {len(splits_of)} articles have pages in two splits, "
            f"such as '{shared[0]}'",
            where=str(path),
            allowed="each article in one split, so that evaluation uses unseen articles only",
            fix="--set data.split=article",
        )


def _is_complete(path: Path) -> bool:
    """Whether a PNG file can be read and has its end."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_TAIL), SEEK_END)
            return file.read() == _TAIL
    except OSError:  # also of a smaller file
        return False
