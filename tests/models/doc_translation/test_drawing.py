import numpy as np

from models.doc_translation.readers.page import PageBlock, Sheet, draw


def dark(page):
    return np.asarray(page) < 128


def test_each_kind_looks_different_from_the_others():
    kinds = ("paragraph", "centered", "ruled", "numbered", "bullet", "formula")
    drawn = [dark(draw([PageBlock(kind, "one two")], Sheet())).tobytes() for kind in kinds]
    assert len(set(drawn)) == len(kinds)
