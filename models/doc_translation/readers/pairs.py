"""Reader of paragraph pairs in JSONL or tables; source paragraphs are rendered as pages."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from models.base import DataError
from models.common.data_files import BadRecords, OnBad, unreadable_file
from models.common.table import columns_option
from models.doc_translation.config import ID, SOURCE, TARGET
from models.doc_translation.readers.page import (
    Collection,
    PageBlock,
    Sheet,
    bleu_tokenizer,
    draw,
    missing_characters,
    without_number,
)
from models.doc_translation.readers.pair_lines import Lines, lines_of

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
    columns: Mapping[str, str] = field(default_factory=dict)
    """The meaning of a key or column by its name in lower case; it comes before their own names."""

    @property
    def meanings(self) -> dict[str, str]:
        """The name of each key that is read, by its meaning."""
        names = {ID: ID, SOURCE: self.source, TARGET: self.target}
        return {meaning: name for meaning, name in names.items() if name is not None}

    def key(self, names: Iterable[str], meaning: str) -> str | None:
        """The one of `names` that has a meaning; case does not count. None: there is none."""
        known = {name.strip().lower(): name for name in names}
        declared = (n for n, m in self.columns.items() if m == meaning and n in known)
        default = self.meanings[meaning].lower()
        name = next(declared, None if default in self.columns else default)
        return None if name is None else known.get(name)


@dataclass(frozen=True)
class PairPage:
    """A page of rows of a file; `spans` holds offset and length of each."""

    path: Path
    document: str
    name: str
    spans: tuple[tuple[int, int], ...]
    layout: Layout

    def image(self) -> Image.Image:
        blocks = [PageBlock("paragraph", text) for text in self._texts(SOURCE)]
        page = draw(blocks, Sheet(), self.layout.font)
        if page is None:
            raise DataError(
                f"the text of page '{self.name}' does not fit on one page",
                where=str(self.path),
                fix="--set data.paragraphs=1  or shorten the paragraph",
            )
        return page

    def target(self) -> str:
        assert self.layout.target is not None, "the pages were read without translations"
        return "\n\n".join(self._texts(TARGET))

    def _texts(self, meaning: str) -> Iterator[str]:
        try:
            with self.path.open("rb") as file:
                for offset, length in self.spans:
                    file.seek(offset)
                    row = json.loads(file.read(length))
                    yield " ".join(row[self.layout.key(row, meaning)].split())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise DataError(
                f"'{self.path}' changed since it was read",
                where=f"page '{self.name}'",
                fix="start again; a file must stay as it is while it is trained on",
            ) from None


@dataclass
class _PairRows:
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
    bad_records, lines = BadRecords(), lines_of(path)
    if lines.header is not None:
        _check_header(path, lines.header, layout)
    rows = _PairRows(keeps_duplicates=keeps_duplicates)
    _index(lines, path.name, layout, bad_records, rows)
    skipped = bad_records.finish(on_bad, len(rows.offsets))
    if not rows.offsets:
        raise DataError(
            f"'{path}' has no valid pair of paragraphs",
            where=f"data.path, skipped rows: {skipped}",
            allowed=_allowed_keys(layout),
        )
    _check_font(rows.characters, layout)
    pages = list(_pages(lines.path, rows, layout))
    counts = {"skipped_rows": skipped, "duplicates": rows.duplicates}
    tokenize = None if layout.target is None else bleu_tokenizer(layout.target)
    return Collection(str(path), pages, tokenize, None, bad_records.rows, counts, lines.notes)


def _index(
    lines: Lines, name: str, layout: Layout, bad_records: BadRecords, rows: _PairRows
) -> None:
    offset, number = lines.start, 0
    try:
        with lines.path.open("rb") as file:
            file.seek(offset)
            # Line ends are those of bytes: a carriage return within JSON is one, too.
            for raw in chain.from_iterable(block.splitlines(keepends=True) for block in file):
                number += 1
                pair = _pair(raw, f"{name}:{number}", lines, layout, bad_records)
                if pair:
                    rows.add(*pair, offset, len(raw))
                offset += len(raw)
    except OSError as error:
        raise unreadable_file(lines.path, error) from None
    rows.seen.clear()  # pages need the memory


def _pair(
    raw: bytes, where: str, lines: Lines, layout: Layout, bad_records: BadRecords
) -> tuple[str, str] | None:
    """Id and source text of a line; None if it is blank, or a reported row if it is invalid."""
    if not raw.strip():
        return None
    try:
        row: Any = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        problem = f"not UTF-8: byte {error.start} of the line is 0x{error.object[error.start]:02x}"
        bad_records.add(where, problem, lines.fix)
        return None
    except (ValueError, RecursionError) as error:
        bad_records.add(where, f"not JSON: {error}")
        return None
    is_table = lines.header is not None
    if is_table and isinstance(row, list):
        bad_records.add(where, *row)
    elif not isinstance(row, dict):
        bad_records.add(
            where, f"{type(row).__name__}, not an object; allowed keys: {_allowed_keys(layout)}"
        )
    else:
        return _checked(row, where, is_table, layout, bad_records)
    return None


def _checked(
    row: Mapping[str, Any], where: str, is_table: bool, layout: Layout, bad_records: BadRecords
) -> tuple[str, str] | None:
    """Id and source text of a row; without an id, a row of a table is a document of its own."""
    texts = {}
    for meaning, name in layout.meanings.items():
        key = layout.key(row, meaning)
        if key is None and meaning == ID and is_table:
            texts[ID] = where
            continue
        text = None if key is None else row[key]
        if not isinstance(text, str) or not text.strip():
            problem = "is missing" if key is None else "is empty or not text"
            problem = f"'{key or name}' {problem}; allowed keys: {_allowed_keys(layout)}"
            bad_records.add(where, problem)
            return None
        texts[meaning] = text
    source = " ".join(texts[SOURCE].split())
    if len(source) > MAX_PARAGRAPH:
        problem = f"'{layout.source}' has {len(source)} characters, more than {MAX_PARAGRAPH}"
        fix = f"split it into rows of at most {MAX_PARAGRAPH} characters"
        bad_records.add(where, problem, fix)
        return None
    return texts[ID], source


def _check_header(path: Path, header: Sequence[str], layout: Layout) -> None:
    """Raise DataError if a column of a text, or of data.columns, is not in a table."""
    absent = [m for m in layout.meanings if m != ID and layout.key(header, m) is None]
    used = {layout.key(header, meaning) for meaning in layout.meanings}
    free = [n for n in header if n and n not in used and n.lower() not in layout.columns]
    if absent:
        free += [f"NAME{number}" for number in range(1, 1 + len(absent) - len(free))]
        names = " and ".join(f"'{layout.meanings[meaning]}'" for meaning in absent)
        raise DataError(
            f"'{path.name}' has no column{'s' if absent[1:] else ''} {names}",
            where=f"columns: {', '.join(header)}",
            allowed=f"{_allowed_keys(layout)}; without {ID} each row is a document of its own",
            fix=columns_option(dict(zip(free, absent, strict=False))),
        )
    names_lower = {name.lower(): name for name in header}
    # Without translations, a file to predict or to pre-train on need not have all columns.
    for name in layout.columns if layout.target is not None else ():
        if name not in names_lower:
            similar = get_close_matches(name, names_lower, n=1)
            raise DataError(
                f"no column is named '{name}', as data.columns says",
                where=str(path),
                allowed=", ".join(header),
                did_you_mean=names_lower[similar[0]] if similar else "",
            )


def _allowed_keys(layout: Layout) -> str:
    return ", ".join(layout.meanings.values())


def _pages(path: Path, rows: _PairRows, layout: Layout) -> Iterator[PairPage]:
    spans: list[tuple[int, int]] = []
    numbers: Counter[int] = Counter()
    documents = list(rows.documents)

    def page() -> PairPage:
        numbers[group] += 1
        name = f"{documents[group]} page {numbers[group]}"
        return PairPage(path, documents[group], name, tuple(spans), layout)

    entries = zip(rows.offsets, rows.lengths, rows.sizes, rows.groups, strict=True)
    group, room = -1, 0
    for offset, length, size, row_group in entries:
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
        missing = missing_characters(layout.font, sorted(characters))
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
