"""Reader of paragraph pairs in JSONL or tables, whose source paragraphs are rendered as pages."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.base import DataError
from models.common import cache
from models.common.cache import ArrayFile
from models.common.data_files import BadRecords, OnBad, identity, unreadable_file
from models.common.table import columns_option, is_table, open_table
from models.common.text_file import TextFile, parse_json
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

_VERSION = 3
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

    @property
    def allowed(self) -> str:
        return ", ".join(self.meanings.values())


@dataclass(frozen=True)
class PairPage:
    """A page of neighboring pairs: `length` bytes of a file from `start` on."""

    path: Path
    start: int
    length: int
    document: str
    name: str
    font: str | None

    def image(self) -> Image.Image:
        blocks = [PageBlock("paragraph", text) for text in self._texts(0)]
        page = draw(blocks, Sheet(), self.font)
        if page is None:
            raise DataError(
                f"the text of page '{self.name}' does not fit on one page",
                where="data.path",
                fix="--set data.paragraphs=1  or shorten the paragraph",
            )
        return page

    def target(self) -> str:
        return "\n\n".join(self._texts(1))

    def _texts(self, side: int) -> list[str]:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return [json.loads(line)[side] for line in file.read(self.length).splitlines()]


def read(path: Path, layout: Layout, on_bad: OnBad, keeps_duplicates: bool = False) -> Collection:
    """Read pages of neighboring paragraphs of one document (the id without its number).

    Unless `keeps_duplicates`, equal source texts are used once. Reads the file, or its copy in the
    cache; writes the cache. Raises DataError.
    """
    try:
        file_identity = identity(path)
    except OSError as error:
        raise unreadable_file(path, error) from None
    made_from = {
        "version": _VERSION, "path": str(path.resolve()), "file": file_identity,
        "keys": layout.meanings, "columns": dict(layout.columns), "duplicates": keeps_duplicates,
    }  # fmt: skip
    write = partial(_write, path, layout, keeps_duplicates)
    copied = cache.streamed("doc-translation-pairs", made_from, write, file_identity[0])
    facts = json.loads(copied["facts"].tobytes())
    bad_records = BadRecords("rows", facts["bad"], [tuple(row) for row in facts["bad_rows"]])
    bad_records.fix = facts["fix"]
    skipped = bad_records.finish(on_bad, facts["pairs"])
    if not facts["pairs"]:
        raise DataError(
            f"'{path}' has no valid pair of paragraphs",
            where=f"data.path, skipped rows: {skipped}",
            allowed=layout.allowed,
        )
    _check_font(Counter(facts["characters"]), layout)
    pages = list(_pages(copied, facts["documents"], layout))
    counts = {"skipped_rows": skipped, "duplicates": facts["duplicates"]}
    tokenize = None if layout.target is None else bleu_tokenizer(layout.target)
    return Collection(str(path), pages, tokenize, None, bad_records.rows, counts, facts["notes"])


def _write(path: Path, layout: Layout, keeps_duplicates: bool, new: cache.Open) -> None:
    """Write the valid pairs as lines of JSON, and what is known of them. Raises DataError."""
    lines, bad_records, notes = ArrayFile(new("lines"), np.uint8), BadRecords(), list[str]()
    ends, sizes, groups = array("q", [0]), array("q", [0]), array("q", [-1])
    documents: dict[str, int] = {}
    seen: set[bytes] = set()
    characters: Counter[str] = Counter()
    num_duplicates = num_probed = 0
    rows = _table_rows if is_table(path) else _json_rows
    for where, row in rows(path, layout, bad_records, notes):
        texts = _checked(row, where, is_table(path), layout, bad_records)
        if texts is None:
            continue
        source = texts[SOURCE]
        if not keeps_duplicates:
            digest = hashlib.blake2b(source.lower().encode(), digest_size=8).digest()
            if digest in seen:
                num_duplicates += 1
                continue
            seen.add(digest)
        line = json.dumps([source, texts.get(TARGET)]).encode() + b"\n"
        lines.append(np.frombuffer(line, np.uint8))
        ends.append(lines.length)
        sizes.append(len(source))
        groups.append(documents.setdefault(without_number(texts[ID]), len(documents)))
        if num_probed < FONT_SAMPLE:
            num_probed += len(source)
            characters.update(source)
    facts = {
        "pairs": len(ends) - 1, "documents": list(documents), "characters": dict(characters),
        "bad": bad_records.count, "bad_rows": bad_records.rows, "fix": bad_records.fix,
        "duplicates": num_duplicates, "notes": [f"{path.name}: {note}" for note in notes],
    }  # fmt: skip
    lines.append(np.frombuffer(b"\n", np.uint8))  # an empty file cannot be mapped
    lines.finish()
    columns = {"ends": (ends, np.int64), "sizes": (sizes, np.int64), "groups": (groups, np.int64)}
    columns["facts"] = (array("B", json.dumps(facts).encode()), np.uint8)
    for name, (values, kind) in columns.items():
        file = ArrayFile(new(name), kind)
        file.append(np.frombuffer(values, kind))
        file.finish()


def _json_rows(
    path: Path, layout: Layout, bad_records: BadRecords, notes: list[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """File and line, and the object of each line of JSON; adds what was assumed to `notes`."""
    file = TextFile(path)
    for number, raw in enumerate(file.lines(), start=1):
        where = f"{path.name}:{number}"
        if not raw.strip():
            continue
        try:
            row = parse_json(raw)
        except ValueError as error:
            bad_records.add(where, f"not JSON: {error}")
            continue
        if isinstance(row, dict):
            yield where, row
        else:
            problem = f"{type(row).__name__}, not an object; allowed keys: {layout.allowed}"
            bad_records.add(where, problem)
    notes += [file.note] if file.note else []


def _table_rows(
    path: Path, layout: Layout, bad_records: BadRecords, notes: list[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """As _json_rows, for the rows of a table. Raises DataError for columns that do not fit."""
    table = open_table(path)
    names = [str("" if name is None else name).strip() for name in table.header]
    lower = [name.lower() for name in names if name]
    if twice := next((name for name in lower if lower.count(name) > 1), None):
        raise DataError(
            f"{lower.count(twice)} columns have the name '{twice}'",
            where=f"line {table.header_line}",
            allowed="columns with different names",
            fix=f"rename {lower.count(twice) - 1} of them in line {table.header_line}",
        )
    _check_header(path, names, layout)
    for number, cells in table.rows(bad_records):
        texts = ("" if cell is None else str(cell) for cell in cells)
        yield f"{path.name}:{number}", dict(zip(names, texts, strict=True))
    notes += table.notes


def _checked(
    row: Mapping[str, Any], where: str, is_table: bool, layout: Layout, bad_records: BadRecords
) -> dict[str, str] | None:
    """The texts of a row by meaning; without an id, a row of a table is a document of its own.

    None, and a bad record: it is invalid.
    """
    texts = {}
    for meaning, name in layout.meanings.items():
        key = layout.key(row, meaning)
        if key is None and meaning == ID and is_table:
            texts[ID] = where
            continue
        text = None if key is None else row[key]
        if not isinstance(text, str) or not text.strip():
            problem = "is missing" if key is None else "is empty or not text"
            problem = f"'{key or name}' {problem}; allowed keys: {layout.allowed}"
            bad_records.add(where, problem)
            return None
        texts[meaning] = text if meaning == ID else " ".join(text.split())
    if len(texts[SOURCE]) > MAX_PARAGRAPH:
        length = len(texts[SOURCE])
        problem = f"'{layout.source}' has {length} characters, more than {MAX_PARAGRAPH}"
        fix = f"split it into rows of at most {MAX_PARAGRAPH} characters"
        bad_records.add(where, problem, fix)
        return None
    return texts


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
            allowed=f"{layout.allowed}; without {ID} each row is a document of its own",
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


def _pages(
    copied: Mapping[str, np.ndarray], documents: Sequence[str], layout: Layout
) -> Iterator[PairPage]:
    lines = copied["lines"]
    assert isinstance(lines, np.memmap) and lines.filename is not None
    path, offset, numbers = Path(lines.filename), lines.offset, Counter[int]()
    ends, sizes, groups = (
        array("q", copied[name].tobytes()) for name in ("ends", "sizes", "groups")
    )
    first, room = 1, PAGE_CHARACTERS
    for row in range(1, len(ends)):
        room -= sizes[row]
        is_last = row + 1 == len(ends) or groups[row + 1] != groups[row]
        is_full = row + 1 - first == layout.paragraphs or (not is_last and sizes[row + 1] > room)
        if is_last or is_full:
            start, group = ends[first - 1], groups[row]
            numbers[group] += 1
            name = f"{documents[group]} page {numbers[group]}"
            length = ends[row] - start
            yield PairPage(path, offset + start, length, documents[group], name, layout.font)
            first, room = row + 1, PAGE_CHARACTERS


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
