import numpy as np

from models.doc_translation.readers.page import PageBlock, Sheet, draw, missing_characters

TEXT = "The quick brown fox jumps over the lazy dog. " * 6


def dark(page):
    return np.asarray(page) < 128


def test_text_stays_within_the_margins():
    ink = dark(draw([PageBlock("title", "A title"), PageBlock("paragraph", TEXT)], Sheet()))
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    assert rows[0] >= 48 and rows[-1] < 896 - 48 and columns[0] >= 48 and columns[-1] < 672 - 40
    assert len(rows) > 50


def test_long_text_gets_smaller_letters_and_too_long_text_none():
    few, many = (draw([PageBlock("paragraph", TEXT * n)], Sheet()) for n in (1, 12))
    assert np.flatnonzero(dark(many).any(1))[-1] > np.flatnonzero(dark(few).any(1))[-1]
    assert draw([PageBlock("paragraph", TEXT * 16)], Sheet(height=300)) is None


def test_two_columns_leave_a_gap_between_them():
    ink = dark(draw([PageBlock("paragraph", TEXT * 12)], Sheet(columns=2)))
    columns = ink.any(0)
    assert columns[60:300].any() and columns[400:600].any()
    assert not columns[325:347].any()


def test_a_word_wider_than_the_column_is_cut_and_chinese_is_wrapped():
    for text, path in (("x" * 300, None), ("中" * 100, None)):
        columns = np.flatnonzero(dark(draw([PageBlock("paragraph", text)], Sheet(), path)).any(0))
        assert columns[-1] < 672 - 40


def test_each_kind_looks_different_from_the_others():
    kinds = ("paragraph", "centered", "ruled", "numbered", "bullet", "formula")
    drawn = [dark(draw([PageBlock(kind, "one two")], Sheet())).tobytes() for kind in kinds]
    assert len(set(drawn)) == len(kinds)


def test_the_cells_of_a_row_are_side_by_side():
    ink = dark(draw([PageBlock("table", "one|two\nthree|four")], Sheet()))
    top = np.flatnonzero(ink.any(1))[0]
    columns = np.flatnonzero(ink[top : top + 18].any(0))
    assert columns[0] < 100 and columns[-1] > 336


def test_characters_that_a_font_lacks_are_found():
    assert missing_characters(None, ["a", "é", "文", " ", "Ω"])[-1:] != []
    assert "文" in missing_characters(None, ["a", "文"]) and "a" not in missing_characters(
        None, ["a", "文"]
    )
