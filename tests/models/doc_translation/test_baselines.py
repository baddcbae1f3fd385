import math

import pytest

from gearshift.models.base import HasBaselines
from gearshift.models.common.split import SPLITS
from gearshift.models.doc_translation.baselines import baselines
from gearshift.models.doc_translation.metric import bleu_of
from gearshift.models.doc_translation.readers.page import Page

TRAIN = [{"references": ["a b c d", "v w x y z", "a b c d"]}, {"references": ["a b c q"]}]
HELD_OUT = [
    {"references": ["a b c d"], "meta": [("first", "first 1")]},
    {"references": ["# a b\n\nc e"], "meta": [("second", "second 1")]},
]


def pages(*sources):
    names = ("first 1", "second 1")
    return {
        name: Page(name, name, None, str, source)
        for name, source in zip(names, sources, strict=True)
    }


def test_the_constant_translation_is_the_best_of_training():
    (constant,) = baselines(TRAIN, HELD_OUT, pages(lambda: "a", None), bleu_of(""))
    # Of 8 words 7 occur in the references ("# a b c e"), and so on; 8 for 9 words.
    precision = 7 / 8 * 5 / 6 * 3 / 4 * 1 / 2
    brevity = math.exp(1 - 9 / 8)
    assert constant.metrics["val_bleu"] == pytest.approx(100 * precision**0.25 * brevity)
    assert constant.metrics["val_bleu_pt"] == constant.metrics["val_bleu"]
    # A heading and its paragraph, of which the constant has the paragraph.
    assert constant.metrics["val_steds"] == (100 + 50) / 2


def test_the_source_is_copied_if_all_pages_have_one():
    known = pages(lambda: "a b c d", lambda: "# a b\n\nc e")
    constant, copy = baselines(TRAIN, HELD_OUT, known, bleu_of(""))
    assert copy.metrics["val_bleu"] == pytest.approx(100) and copy.metrics["val_steds"] == 100
    assert constant.metrics["val_bleu"] < 70


def test_a_card_is_neither_frequent_nor_its_source(cards, batch_of):
    assert isinstance(cards, HasBaselines)
    train, held_out = batch_of(cards, 50), batch_of(cards, 50, "val")
    constant, copy = cards.baselines([train], [held_out])
    # Of about five words one is right by chance; headings and paragraphs are those of all cards.
    assert copy.metrics["val_bleu"] < constant.metrics["val_bleu"] < 10
    assert constant.metrics["val_steds"] == copy.metrics["val_steds"] == 100


def test_the_source_of_dota_is_english(make_task, dota):
    task = make_task(path=dota)
    task.setup()
    for name in SPLITS:
        for number in task.data(name).numbers:
            page = task.records[number]
            assert page.source() == page.target().replace("第", "Page ").replace(
                "页\n\n正文。", "\n\nText."
            )
    english = make_task(path=dota, target="en")
    english.setup()
    assert {page.source for page in english.records} == {None}
