"""Corpus of files, and the split of a few long texts by position."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from gearshift.models.base import DataError, Groups, SplitName
from gearshift.models.common import cache
from gearshift.models.common.data_reports import OnBad
from gearshift.models.common.split import SPLITS, SplitRule, held_out
from gearshift.models.language.readers.corpus import SMALL, VERSION, Corpus, scan
from gearshift.models.language.readers.files import FileSource
from gearshift.models.language.readers.records import PIECE_MARK


def read_corpus(
    path: Path,
    answers: Path | None,
    on_bad: OnBad,
    columns: Mapping[str, str] | None = None,
) -> Corpus:
    """Read the corpus under `path`; line N of `answers` answers line N of `path`.

    Fewer than three texts are cut into parts of whole lines, whose end is held out: `split_ends`.
    `columns`: declared ones, see form_of. Reads the files once, or their cached index. Raises
    DataError.
    """
    source = FileSource(path, answers, columns or {})
    corpus = _indexed(source, on_bad)
    # Too few texts for a split by text: a split by position needs their parts.
    if corpus.is_text and len(set(corpus.groups)) < len(SPLITS):
        source.cut()
        corpus = _indexed(source, on_bad)
    return corpus


def _indexed(source: FileSource, on_bad: OnBad) -> Corpus:
    if source.size <= SMALL:
        return Corpus(source, scan(source, on_bad))
    made_from = {"version": VERSION, "files": source.stamp, "on_bad": on_bad}
    return Corpus(source, cache.arrays("language-index", made_from, partial(scan, source, on_bad)))


def split_ends(corpus: Corpus, rule: SplitRule) -> Groups:
    """The parts of each text by position: its end tests, what is before validates, the rest trains.

    Raises DataError for a fold, and if no text has three parts.
    """
    advice = "use three documents or more"
    rule.refuse_fold("fewer than 3 documents are split by position", hint=advice)
    parts_of: dict[str, list[str]] = {}
    for part in dict.fromkeys(corpus.groups):
        text, _, _ = part.rpartition(PIECE_MARK)
        parts_of.setdefault(text, []).append(part)
    splits: dict[SplitName, list[str]] = {name: [] for name in SPLITS}
    for parts in parts_of.values():
        count = max(1, round(rule.fraction * len(parts)))
        share = held_out(count, rule.share)
        if count <= 2 * share:  # too short to be held out in part
            share = 0
        test = count - share
        val = test - share
        splits["train"] += parts[:val]
        splits["val"] += parts[val:test]
        splits["test"] += parts[test:count]
    if not splits["val"]:
        raise DataError(
            f"'{corpus.source.name}' has too few lines to hold out the end of its text",
            where="data.path, data.fraction, eval.share",
            allowed="three documents, "
            "or a text with at least one line each for train, val and test",
            hint=advice,
        )
    return {name: sorted(groups) for name, groups in splits.items()}
