import numpy as np

from models.doc_translation.readers.page import PageBlock, Sheet, draw, missing_characters


def dark(page):
    return np.asarray(page) < 128


def test_each_kind_looks_different_from_the_others():
    kinds = ("paragraph", "centered", "ruled", "numbered", "bullet", "formula")
    drawn = [dark(draw([PageBlock(kind, "one two")], Sheet())).tobytes() for kind in kinds]
    assert len(set(drawn)) == len(kinds)


def test_characters_that_a_font_lacks_are_found():
    assert missing_characters(None, ["a", "é", "文", " ", "Ω"])[-1:] != []
    assert "文" in missing_characters(None, ["a", "文"]) and "a" not in missing_characters(None, ["a", "文"])
