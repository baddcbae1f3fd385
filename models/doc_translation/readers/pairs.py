"""Paragraphs in two languages, one pair a line, drawn as pages of the one to write the other."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from models.base import DataError
from models.common.data_files import BadRecords, OnBad
from models.doc_translation.readers import drawing
from models.doc_translation.readers.page import Collection, bleu_tokenizer

LONGEST = 4000
"""Characters of a paragraph that can be drawn on one page."""

ROOM = 1600
"""Characters that paragraphs of one page have together, but for a single longer one."""

MOST_MISSING = 0.02
"""Share of the characters that a font may draw as boxes."""

PROBED = 2_000_000
"""Characters by which a font is judged: to count all of a large file would take minutes."""

_NUMBERED = re.compile(r"(.+)[-_]\d+")


@dataclass(frozen=True)
class Layout:
    """How paragraphs become pages."""

    source: str
    target: str
    paragraphs: int
    font: str | None


@dataclass(frozen=True)
class PairPage:
    """A page of rows that lie at `places` of a file: offset and length of each."""

    path: Path
    document: str
    name: str
    places: tuple[tuple[int, int], ...]
    layout: Layout

    def image(self) -> Image.Image:
        """See Page. Reads from disk, then draws."""
        blocks = [drawing.Block("paragraph", text) for text in self._texts(self.layout.source)]
        page = drawing.draw(blocks, drawing.Sheet(), self.layout.font)
        if page is None:
            raise DataError(
                f"page '{self.name}' is too much text to be drawn on one page",
                where=str(self.path),
                fix="--set data.paragraphs=1, or cut the paragraph",
            )
        return page

    def target(self) -> str:
        """See Page. Reads from disk."""
        return "\n\n".join(self._texts(self.layout.target))

    def _texts(self, key: str) -> Iterator[str]:
        with self.path.open("rb") as file:
            for offset, length in self.places:
                file.seek(offset)
                yield " ".join(json.loads(file.read(length))[key].split())


@dataclass
class _Rows:
    """Where the usable rows of a file lie, a few bytes each: the file may be large."""

    offsets: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("i"))
    """Characters to be drawn."""
    groups: array[int] = field(default_factory=lambda: array("i"))
    documents: list[str] = field(default_factory=list)
    characters: Counter[str] = field(default_factory=Counter)
    probed: int = 0
    duplicates: int = 0


def read(path: Path, layout: Layout, on_bad: OnBad) -> Collection:
    """Pages of neighbouring paragraphs of one document, which is the id without its number.

    A source text that was there before is left out. Reads the file once, keeps none of its text.
    Raises DataError.
    """
    faults = BadRecords()
    rows = _index(path, layout, faults)
    skipped = faults.finish(on_bad, len(rows.offsets))
    if not rows.offsets:
        raise DataError(
            f"'{path}' holds no pair of paragraphs",
            where=f"data.path, {skipped} rows left out",
            allowed=_legal(layout),
        )
    _check_font(rows.characters, layout)
    pages = list(_pages(path, rows, layout))
    counts = {"skipped_rows": skipped, "duplicates": rows.duplicates}
    return Collection(str(path), pages, bleu_tokenizer(layout.target), None, faults.rows, counts)


def _index(path: Path, layout: Layout, faults: BadRecords) -> _Rows:
    rows, offset = _Rows(), 0
    seen: set[bytes] = set()
    numbers: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            for line, raw in enumerate(file, start=1):
                if raw.strip():
                    found = _pair(raw, f"{path.name}:{line}", layout, faults)
                    if found is not None:
                        _add(rows, found, (offset, len(raw)), seen, numbers)
                offset += len(raw)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}", where="data.path") from None
    return rows


def _add(
    rows: _Rows,
    pair: tuple[str, str],
    place: tuple[int, int],
    seen: set[bytes],
    numbers: dict[str, int],
) -> None:
    name, text = pair
    mark = hashlib.blake2b(text.lower().encode(), digest_size=8).digest()
    if mark in seen:
        rows.duplicates += 1
        return
    seen.add(mark)
    match = _NUMBERED.fullmatch(name)
    document = match[1] if match else name
    if document not in numbers:
        numbers[document] = len(numbers)
        rows.documents.append(document)
    rows.offsets.append(place[0])
    rows.lengths.append(place[1])
    rows.sizes.append(len(text))
    rows.groups.append(numbers[document])
    if rows.probed < PROBED:
        rows.probed += len(text)
        rows.characters.update(text)


def _pair(raw: bytes, where: str, layout: Layout, faults: BadRecords) -> tuple[str, str] | None:
    """Id and source text of a line; None and a fault where it cannot be used."""
    try:
        row: Any = json.loads(raw.decode("utf-8-sig"))
    except ValueError as error:  # no UTF-8, or no JSON
        faults.add(where, f"no JSON: {error}")
        return None
    if not isinstance(row, dict):
        faults.add(where, f"{type(row).__name__}, not an object; legal keys  {_legal(layout)}")
        return None
    for key in ("id", layout.source, layout.target):
        value = row.get(key)
        if not isinstance(value, str) or not value.strip():
            wrong = "is not there" if key not in row else "is empty or no text"
            faults.add(where, f"'{key}' {wrong}; legal keys  {_legal(layout)}")
            return None
    text = " ".join(row[layout.source].split())
    if len(text) > LONGEST:
        faults.add(where, f"'{layout.source}' has {len(text)} characters; a page has {LONGEST}")
        return None
    return row["id"], text


def _legal(layout: Layout) -> str:
    return f"id, {layout.source}, {layout.target}"


def _pages(path: Path, rows: _Rows, layout: Layout) -> Iterator[PairPage]:
    """Neighbouring rows of one document, as many as go on a page."""
    places: list[tuple[int, int]] = []
    numbers: Counter[str] = Counter()
    found = zip(rows.offsets, rows.lengths, rows.sizes, rows.groups, strict=True)
    group, room = -1, 0
    for offset, length, size, own in found:
        if places and (own != group or len(places) == layout.paragraphs or size > room):
            yield _page(path, rows.documents[group], numbers, places, layout)
            places = []
        if not places:
            room = ROOM
        places.append((offset, length))
        group, room = own, room - size
    yield _page(path, rows.documents[group], numbers, places, layout)


def _page(
    path: Path,
    document: str,
    numbers: Counter[str],
    places: list[tuple[int, int]],
    layout: Layout,
) -> PairPage:
    numbers[document] += 1
    return PairPage(path, document, f"{document} page {numbers[document]}", tuple(places), layout)


def _check_font(characters: Counter[str], layout: Layout) -> None:
    """Raises DataError where the font is none, or would draw mostly boxes."""
    try:
        boxes = drawing.missing(layout.font, sorted(characters))
    except OSError as error:
        raise DataError(
            f"data.font '{layout.font}' is no font that can be read: {error}",
            where="data.font",
            allowed="a file such as DejaVuSans.ttf or NotoSansCJK.ttc",
        ) from None
    share = sum(characters[c] for c in boxes) / characters.total()
    if share > MOST_MISSING:
        raise DataError(
            f"the font has no letters for {share:.0%} of the text, such as {boxes[-1]!r}",
            where=f"data.font {layout.font or 'not given: Pillow has Latin letters only'}",
            allowed=f"a font that lacks at most {MOST_MISSING:.0%} of '{layout.source}'",
            fix="--set data.font=FILE, such as a NotoSansCJK.ttc of this machine",
        )
