import numpy as np
import pytest

from models.base import DataError
from models.doc_translation.readers.pairs import MAX_PARAGRAPH, Layout, read

EN_ZH = Layout("en", "zh", 3, None)


def row(number, chapter=0, en=None, zh="文"):
    text = f"Text number {number}." if en is None else en
    return {"id": f"ch{chapter:02}-{number:04}", "en": text, "zh": zh}


def test_neighboring_paragraphs_of_a_document_make_a_page(pairs):
    rows = [row(i, chapter=i // 5, zh=f"第{i}段") for i in range(8)]
    found = read(pairs(rows), EN_ZH, "stop")
    assert [(p.document, p.name, len(p.spans)) for p in found.pages] == [
        ("ch00", "ch00 page 1", 3),
        ("ch00", "ch00 page 2", 2),
        ("ch01", "ch01 page 1", 3),
    ]
    assert found.pages[1].target() == "第3段\n\n第4段"
    assert found.given is None and found.tokenize == "zh"


def test_a_page_ends_if_the_next_paragraph_does_not_fit(pairs):
    long = [row(i, en=f"{i} " + "word " * 200) for i in range(4)]
    assert [len(p.spans) for p in read(pairs(long), EN_ZH, "stop").pages] == [1, 1, 1, 1]


def test_the_page_shows_the_source_and_the_other_way_round_with_other_keys(pairs):
    path = pairs([row(i, en=f"Some text {i}", zh=f"Ein Text {i}") for i in range(3)])
    source_page = read(path, EN_ZH, "stop").pages[0]
    other = read(path, Layout("zh", "en", 3, None), "stop").pages[0]
    ink = [np.asarray(page.image()) < 128 for page in (source_page, other)]
    assert 100 < ink[0].sum() < 20_000 and not np.array_equal(*ink)
    assert other.target() == "Some text 0\n\nSome text 1\n\nSome text 2"
    assert read(path, Layout("zh", "en", 3, None), "stop").tokenize == "13a"


def test_a_duplicate_source_text_is_dropped(pairs):
    rows = [row(0), row(1, chapter=1, en="TEXT  number 0."), row(2)]
    found = read(pairs(rows), EN_ZH, "stop")
    assert found.counts == {"skipped_rows": 0, "duplicates": 1}
    assert {page.document for page in found.pages} == {"ch00"}


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes"),
        ("[1]", "list, not an object; allowed keys: id, en, zh"),
        ({"id": "a-1", "en": "x"}, "'zh' is missing; allowed keys: id, en, zh"),
        ({"en": "x", "zh": "y"}, "'id' is missing; allowed keys: id, en, zh"),
        (
            {"id": "a-1", "en": " ", "zh": "y"},
            "'en' is empty or not text; allowed keys: id, en, zh",
        ),
        ({"id": "a-1", "en": 3, "zh": "y"}, "'en' is empty or not text; allowed keys: id, en, zh"),
        (
            {"id": "a-1", "en": "x" * (MAX_PARAGRAPH + 1), "zh": "y"},
            "'en' has 4001 characters, more than 4000",
        ),
    ],
)
def test_an_invalid_row_is_reported_with_its_line_or_skipped(pairs, bad, what):
    path = pairs([row(0), bad, row(2)])
    with pytest.raises(DataError) as error:
        read(path, EN_ZH, "stop")
    first, second = str(error.value).split("\n")[:2]
    assert first == "1 of 3 rows cannot be used"
    assert second.startswith(f"  where         pairs.jsonl:2: {what}")
    found = read(path, EN_ZH, "skip")
    assert found.counts["skipped_rows"] == 1 and len(found.skipped) == 1


def test_a_file_without_a_pair_is_an_error(pairs):
    with pytest.raises(DataError) as error:
        read(pairs([""]), EN_ZH, "stop")
    assert str(error.value).split("\n")[0].endswith("pairs.jsonl' has no valid pair of paragraphs")
    assert error.value.allowed == "id, en, zh"


def test_text_with_characters_that_the_font_lacks_is_an_error(pairs):
    path = pairs([row(i, zh="Text", en=f"这是第{i}段中文") for i in range(3)])
    with pytest.raises(DataError, match=r"the font lacks \d+% of the characters") as error:
        read(path, EN_ZH, "stop")
    assert error.value.fix.startswith("--set data.font=FILE")


def test_an_invalid_font_file_is_an_error(pairs, tmp_path):
    path = tmp_path / "font.ttf"
    path.write_bytes(b"none")
    with pytest.raises(DataError, match=r"data\.font .* is not a readable font"):
        read(pairs([row(0)]), Layout("en", "zh", 3, str(path)), "stop")
