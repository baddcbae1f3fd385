import re

import numpy as np
import pytest

from models.common.data_files import CACHE_VARIABLE
from models.doc_translation import embedded
from models.doc_translation import embedded as artificial
from models.doc_translation.embedded import SUFFIXES
from models.doc_translation.metric import plain_text
from models.doc_translation.readers.page import Sheet, draw


@pytest.fixture(scope="module")
def few():
    """The first twelve documents."""
    author = artificial.Author(np.random.default_rng(artificial.SEED))
    return author, [author.document(number) for number in range(12)]


def test_cards_are_deterministic_and_read_from_the_cache(monkeypatch, tmp_path):
    first = embedded.read_cards().pages
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    again = embedded.read_cards().pages
    assert len(first) == len(again) == embedded.COUNT
    for i in (0, 17, embedded.COUNT - 1):
        assert np.array_equal(first[i].pixels, again[i].pixels)
        assert first[i].target() == again[i].target()


def test_a_translation_swaps_the_words_and_has_the_ending_of_its_heading():
    for card in embedded.read_cards().pages[:50]:
        kind, heading, adjective, noun, *_ = card.words
        first, blank, line, _ = card.target().split("\n")
        assert first == f"# {embedded.NOUNS[heading].written}" and blank == ""
        ours = (
            embedded.NOUNS[noun].written,
            embedded.ADJECTIVES[adjective].written + SUFFIXES[kind],
        )
        assert tuple(line.split()) == ours


def test_the_position_of_the_heading_follows_its_kind():
    for card in embedded.read_cards().pages[:20]:
        ink = np.asarray(card.image())[2:24, 1:-1] < 110
        left = np.flatnonzero(ink.any(0))[0] + 1
        assert left == pytest.approx(embedded.CARD_HEADINGS[card.words[0]] + 2, abs=3)


def test_the_lexicon_has_two_hundred_distinct_words_in_either_language(few):
    words = few[0].words
    every = [*words.nouns, *words.adjectives, *words.verbs, *words.joints]
    assert len(every) == len({w.read for w in every}) == len({w.written for w in every}) == 200


def test_documents_have_two_to_four_pages_and_all_that_a_page_may_hold(few):
    _, found = few
    assert {len(pages) for pages in found} == {2, 3, 4}
    kinds = {block.kind for pages in found for page in pages for block in page.blocks}
    assert {"title", "paragraph", "bullet", "table", "formula", *artificial.HEADINGS} == kinds
    targets = "\n".join(page.target for pages in found for page in pages)
    assert "\n\n\n" not in targets
    assert plain_text(targets) != targets and "tabular" not in plain_text(targets)


def test_the_kind_of_heading_decides_the_ending_of_all_adjectives_of_a_document(few):
    author, found = few
    stems = {word.written for word in author.words.adjectives}
    for pages in found:
        [kind] = {b.kind for p in pages for b in p.blocks if b.kind in artificial.HEADINGS}
        written = re.findall(r"[a-z]+", " ".join(p.target for p in pages).lower())
        ends = {w[-1] for w in written if w[:-1] in stems}
        assert ends == {SUFFIXES[artificial.HEADINGS.index(kind)]}


def test_about_a_tenth_of_the_sentences_is_of_one_document_alone(few):
    author, found = few
    shared = {sentence.read for sentence in author.shared}
    sentences = [
        sentence + "."
        for pages in found
        for page in pages
        for block in page.blocks
        if block.kind == "paragraph"
        for sentence in block.text.rstrip(".").split(". ")
    ]
    assert 0.03 < sum(s not in shared for s in sentences) / len(sentences) < 0.2


def test_every_page_fits_on_its_sheet_and_scans_differ_in_margins_and_columns(few):
    _, found = few
    rng = np.random.default_rng(0)
    scans = [np.asarray(artificial.scan(page, rng)) for pages in found[:3] for page in pages]
    lefts = [np.flatnonzero((scan < 128).any(0))[0] for scan in scans]
    assert len(set(lefts)) > 3
    for pages in found:
        for page in pages:
            assert draw(page.blocks, Sheet(margin=72, columns=2)) is not None


@pytest.mark.slow
def test_pages_from_the_cache_equal_the_rendered_ones():
    drawn, cached = artificial.read_pages(), artificial.read_pages()
    assert len({page.document for page in drawn.pages}) == artificial.DOCUMENTS
    for i in (0, 400, len(drawn.pages) - 1):
        first, second = drawn.pages[i], cached.pages[i]
        assert np.array_equal(np.asarray(first.image()), np.asarray(second.image()))
        assert first.target() == second.target() and first.image().size == (672, 896)
