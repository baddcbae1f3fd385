"""Corpus of files; its index is cached for large data."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gearshift.models.common import cache
from gearshift.models.common.data_reports import OnBad
from gearshift.models.common.table import Meanings
from gearshift.models.language.readers.corpus import SMALL, VERSION, Corpus, scan
from gearshift.models.language.readers.files import FileSource


def read_corpus(
    path: Path,
    answers: Path | None,
    on_bad: OnBad,
    columns: Meanings | None = None,
    *,
    has_one_split: bool = False,
) -> Corpus:
    """Read the corpus under `path`; line N of `answers` answers line N of `path`.

    `columns`: declared ones, see form_of. `has_one_split`: the names of its files tell nothing of
    their split. Reads the files once, or their cached index. Raises
    DataError.
    """
    source = FileSource(path, answers, columns or {}, has_one_split=has_one_split)
    make = partial(scan, source, on_bad)
    if source.size <= SMALL:
        return Corpus(source, make())
    made_from = {"version": VERSION, "files": source.stamp, "on_bad": on_bad}
    return Corpus(source, cache.arrays("language-index", made_from, make))
