"""Reader of paragraph pairs in JSONL; source paragraphs are rendered as pages."""

from __future__ import annotations

import hashlib
import json
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
from models.doc_translation.readers.page import Collection, bleu_tokenizer, without_number

MAX_PARAGRAPH = 4000
"""Maximum characters of a paragraph."""

PAGE_CHARACTERS = 1600
"""Maximum characters of a page with several paragraphs."""

MAX_MISSING = 0.02
"""Maximum share of characters that the font lacks."""

FONT_SAMPLE = 2_000_000
"""Characters checked against the font; counting a large file would take minutes."""


@dataclass(frozen=True)
class Layout:
    """Settings that turn paragraphs into pages."""

    source: str
    target: str | None
    """None: translations are not read."""
    paragraphs: int
    font: str | None


@dataclass(frozen=True)
class PairPage:
    """A page of rows of a file; `spans` holds offset and length of each."""

    path: Path
    document: str
    name: str
    spans: tuple[tuple[int, int], ...]
    layout: Layout

    def image(self) -> Image.Image:
        """See Page. Disk access."""
        blocks = [drawing.Block("paragraph", text) for text in self._texts(self.layout.source)]
        page = drawing.draw(blocks, drawing.Sheet(), self.layout.font)
        if page is None:
            raise DataError(
                f"the text of page '{self.name}' does not fit on one page",
                where=str(self.path),
                fix="--set data.paragraphs=1  or shorten the paragraph",
            )
        return page

    def target(self) -> str:
        """See Page. Disk access."""
        assert self.layout.target is not None, "the pages were read without translations"
        return "\n\n".join(self._texts(self.layout.target))

    def _texts(self, key: str) -> Iterator[str]:
        with self.path.open("rb") as file:
            for offset, length in self.spans:
                file.seek(offset)
                yield " ".join(json.loads(file.read(length))[key].split())


@dataclass
class _Rows:
    """Positions of the valid rows of a file, a few bytes each, because the file may be large."""

    offsets: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("i"))
    """Characters of the source text."""
    groups: array[int] = field(default_factory=lambda: array("i"))
    documents: dict[str, int] = field(default_factory=dict)
    """The number of each document, in order."""
    seen: set[bytes] = field(default_factory=set)
    """Digests of the source texts."""
    characters: Counter[str] = field(default_factory=Counter)
    probed: int = 0
    duplicates: int = 0
    keeps_duplicates: bool = False

    def add(self, name: str, text: str, offset: int, length: int) -> None:
        """Add a row by its id and source text; if duplicates are dropped, unless it is one."""
        if not self.keeps_duplicates:
            digest = hashlib.blake2b(text.lower().encode(), digest_size=8).digest()
            if digest in self.seen:
                self.duplicates += 1
                return
            self.seen.add(digest)
        self.offsets.append(offset)
        self.lengths.append(length)
        self.sizes.append(len(text))
        self.groups.append(self.documents.setdefault(without_number(name), len(self.documents)))
        if self.probed < FONT_SAMPLE:
            self.probed += len(text)
            self.characters.update(text)


def read(path: Path, layout: Layout, on_bad: OnBad, keeps_duplicates: bool = False) -> Collection:
    """Read pages of neighboring paragraphs of one document (the id without its number).

    Unless `keeps_duplicates`, equal source texts are used once. Reads the file once and stores
    positions only. Raises DataError.
    """
    bad_records = BadRecords()
    rows = _Rows(keeps_duplicates=keeps_duplicates)
    _index(path, layout, bad_records, rows)
    skipped = bad_records.finish(on_bad, len(rows.offsets))
    if not rows.offsets:
        raise DataError(
            f"'{path}' has no valid pair of paragraphs",
            where=f"data.path, skipped rows: {skipped}",
            allowed=_allowed_keys(layout),
        )
    _check_font(rows.characters, layout)
    pages = list(_pages(path, rows, layout))
    counts = {"skipped_rows": skipped, "duplicates": rows.duplicates}
    tokenize = None if layout.target is None else bleu_tokenizer(layout.target)
    return Collection(str(path), pages, tokenize, None, bad_records.rows, counts)


def _index(path: Path, layout: Layout, bad_records: BadRecords, rows: _Rows) -> None:
    """Add the valid rows of a file to `rows`."""
    offset = 0
    try:
        with path.open("rb") as file:
            for line, raw in enumerate(file, start=1):
                where = f"{path.name}:{line}"
                if raw.strip() and (found := _pair(raw, where, layout, bad_records)):
                    rows.add(*found, offset, len(raw))
                offset += len(raw)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}", where="data.path") from None
    rows.seen.clear()  # pages need the memory


def _pair(
    raw: bytes, where: str, layout: Layout, bad_records: BadRecords
) -> tuple[str, str] | None:
    """Id and source text of a line; None and a reported row if it is invalid."""
    try:
        row: Any = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        problem = f"not UTF-8: byte {error.start} of the line is 0x{error.object[error.start]:02x}"
        bad_records.add(where, problem, "save the file as UTF-8")
        return None
    except ValueError as error:
        bad_records.add(where, f"not JSON: {error}")
        return None
    if not isinstance(row, dict):
        bad_records.add(
            where, f"{type(row).__name__}, not an object; allowed keys: {_allowed_keys(layout)}"
        )
        return None
    for key in _keys(layout):
        value = row.get(key)
        if not isinstance(value, str) or not value.strip():
            problem = "is missing" if key not in row else "is empty or not text"
            bad_records.add(where, f"'{key}' {problem}; allowed keys: {_allowed_keys(layout)}")
            return None
    text = " ".join(row[layout.source].split())
    if len(text) > MAX_PARAGRAPH:
        bad_records.add(
            where, f"'{layout.source}' has {len(text)} characters, more than {MAX_PARAGRAPH}"
        )
        return None
    return row["id"], text


def _keys(layout: Layout) -> list[str]:
    keys = ("id", layout.source, layout.target)
    return [key for key in keys if key is not None]


def _allowed_keys(layout: Layout) -> str:
    return ", ".join(_keys(layout))


def _pages(path: Path, rows: _Rows, layout: Layout) -> Iterator[PairPage]:
    """Pages of neighboring rows of one document."""
    spans: list[tuple[int, int]] = []
    numbers: Counter[int] = Counter()
    documents = list(rows.documents)

    def page() -> PairPage:
        numbers[group] += 1
        name = f"{documents[group]} page {numbers[group]}"
        return PairPage(path, documents[group], name, tuple(spans), layout)

    found = zip(rows.offsets, rows.lengths, rows.sizes, rows.groups, strict=True)
    group, room = -1, 0
    for offset, length, size, row_group in found:
        if spans and (row_group != group or len(spans) == layout.paragraphs or size > room):
            yield page()
            spans = []
        if not spans:
            room = PAGE_CHARACTERS
        spans.append((offset, length))
        group, room = row_group, room - size
    yield page()


def _check_font(characters: Counter[str], layout: Layout) -> None:
    """Raises DataError if the font is not readable or lacks too many characters."""
    try:
        missing = drawing.missing_characters(layout.font, sorted(characters))
    except OSError as error:
        raise DataError(
            f"data.font '{layout.font}' is not a readable font: {error}",
            where="data.font",
            allowed="a font file, for example DejaVuSans.ttf or NotoSansCJK.ttc",
        ) from None
    share = sum(characters[c] for c in missing) / characters.total()
    if share > MAX_MISSING:
        raise DataError(
            f"the font lacks {share:.0%} of the characters, for example {missing[-1]!r}",
            where=f"data.font {layout.font or 'not set: Pillow has Latin letters only'}",
            allowed=f"a font that lacks at most {MAX_MISSING:.0%} of '{layout.source}'",
            fix="--set data.font=FILE  for example a NotoSansCJK.ttc of this machine",
        )
