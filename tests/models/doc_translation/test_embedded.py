import re

import numpy as np
import pytest

from gearshift.models.common.data_files import CACHE_VARIABLE
from gearshift.models.doc_translation import embedded


@pytest.fixture(scope="module")
def few():
    """The first twelve documents."""
    author = embedded.Author(np.random.default_rng(embedded.SEED))
    return author, [author.document(number) for number in range(12)]


def test_cards_are_deterministic_and_read_from_the_cache(monkeypatch, tmp_path):
    first = embedded.read_cards().pages
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    again = embedded.read_cards().pages
    assert len(first) == len(again) == embedded.COUNT
    for i in (0, 17, embedded.COUNT - 1):
        assert first[i].image() == again[i].image()
        assert first[i].target() == again[i].target()


def test_a_translation_swaps_the_words_and_has_the_ending_of_its_heading():
    for kind, ending in enumerate(embedded.SUFFIXES):
        source, text = embedded.card_texts(kind, 2, 0, 1, 5, 4)
        assert source == "# fim\n\nmev dol\ntez hen"
        assert text == f"# cildo\n\nbeso jast{ending}\nefri pund{ending}"
        assert (embedded.NOUNS[1].read, embedded.ADJECTIVES[0].read) == ("dol", "mev")


def test_the_kind_of_heading_decides_the_ending_of_all_adjectives_of_a_document(few):
    author, found = few
    stems = {word.written for word in author.words["adjectives"]}
    for pages in found:
        [kind] = {b.kind for p in pages for b in p.blocks if b.kind in embedded.HEADINGS}
        written = re.findall(r"[a-z]+", " ".join(p.target for p in pages).lower())
        ends = {w[-1] for w in written if w[:-1] in stems}
        assert ends == {embedded.SUFFIXES[embedded.HEADINGS.index(kind)]}
