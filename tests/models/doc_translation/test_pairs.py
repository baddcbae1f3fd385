import pickle
from pathlib import Path

import numpy as np
import pytest

from models.base import DataError
from models.doc_translation import formats
from models.doc_translation.readers.pairs import MAX_PARAGRAPH, Layout, read
from tests.models.errors import error_of

EN_ZH = Layout("en", "zh", 3, None)


def row(number, chapter=0, en=None, zh="文"):
    text = f"Text number {number}." if en is None else en
    return {"id": f"ch{chapter:02}-{number:04}", "en": text, "zh": zh}


def test_neighboring_paragraphs_of_a_document_make_a_page(pairs):
    rows = [row(i, chapter=i // 5, zh=f"第{i}段") for i in range(8)]
    found = read(pairs(rows), EN_ZH, "stop")
    assert [(p.document, p.name, p.target().count("\n\n") + 1) for p in found.pages] == [
        ("ch00", "ch00 page 1", 3),
        ("ch00", "ch00 page 2", 2),
        ("ch01", "ch01 page 1", 3),
    ]
    assert found.pages[1].target() == "第3段\n\n第4段"
    assert found.given is None and found.tokenize == "zh"
    # A page ends where the next paragraph does not fit, and equal sources count once.
    long = [row(i, en=f"{i} " + "word " * 200) for i in range(4)]
    assert [p.target().count("\n\n") for p in read(pairs(long), EN_ZH, "stop").pages] == [0] * 4
    rows = [row(0), row(1, chapter=1, en="TEXT  number 0."), row(2)]
    found = read(pairs(rows), EN_ZH, "stop")
    assert found.counts == {"skipped_rows": 0, "duplicates": 1}
    assert {page.document for page in found.pages} == {"ch00"}


def test_the_page_shows_the_source_and_the_other_way_round_with_other_keys(pairs):
    path = pairs([row(i, en=f"Some text {i}", zh=f"Ein Text {i}") for i in range(3)])
    source_page = read(path, EN_ZH, "stop").pages[0]
    other = read(path, Layout("zh", "en", 3, None), "stop").pages[0]
    ink = [np.asarray(page.image()) < 128 for page in (source_page, other)]
    assert 100 < ink[0].sum() < 20_000 and not np.array_equal(*ink)
    assert other.target() == "Some text 0\n\nSome text 1\n\nSome text 2"
    assert read(path, Layout("zh", "en", 3, None), "stop").tokenize == "13a"


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes"),
        ("[1]", "list, not an object; allowed keys: id, en, zh"),
        ('{"id": "a-1", "en": "x", "zh": "\\ud800"}', "not JSON: half of a surrogate pair"),
        ({"en": "x", "zh": "y"}, "'id' is missing; allowed keys: id, en, zh"),
        ({"id": "a-1", "en": 3, "zh": "y"}, "'en' is empty or not text; allowed keys: id, en, zh"),
        (row(1, en="x" * (MAX_PARAGRAPH + 1)), "'en' has 4001 characters, more than 4000"),
    ],
)
def test_an_invalid_row_is_reported_with_its_line_or_skipped(pairs, bad, what):
    path = pairs([row(0), bad, row(2)])
    error = error_of(read, path, EN_ZH, "stop")
    first, second = str(error).split("\n")[:2]
    assert first == "1 of 3 rows cannot be used"
    assert second.startswith(f"  where         pairs.jsonl:2: {what}")
    found = read(path, EN_ZH, "skip")
    assert found.counts["skipped_rows"] == 1 and len(found.skipped) == 1


def test_text_with_characters_that_the_font_lacks_is_an_error(pairs):
    path = pairs([row(i, zh="Text", en=f"这是第{i}段中文") for i in range(3)])
    with pytest.raises(DataError, match=r"the font lacks \d+% of the characters") as error:
        read(path, EN_ZH, "stop")
    assert error.value.fix.startswith("--set data.font=FILE")


TEXTS = [
    ("ch00-0001", "cafe, one", "一"),
    ("ch00-0002", "two;\nlines", "zwei"),
    ("b-1", "3", "drei"),
]
AS_TABLE = [("id", "en", "zh"), *TEXTS]


def texts(path, layout=EN_ZH, on_bad="stop"):
    """The document and translation of each page, the notes and the number of bad rows."""
    found = read(path, layout, on_bad)
    pages = [(page.document, page.target()) for page in pickle.loads(pickle.dumps(found.pages))]
    return pages, list(found.notes), found.counts["skipped_rows"]


def table_text(rows, delimiter=","):
    quoted = ([f'"{cell}"' for cell in row] for row in rows)
    return "\r\n".join(delimiter.join(cells) for cells in quoted) + "\r\n"


PAGES = [("ch00", "一\n\nzwei"), ("b", "drei")]


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(",", "utf-8-sig"), (";", "utf-16-le"), ("\t", "utf-32")]
)
def test_pairs_are_read_from_tables(tmp_path, delimiter, encoding):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(table_text(AS_TABLE, delimiter).encode(encoding))
    assert formats.recognize(path) == formats.PAIRS
    is_assumed = encoding == "utf-16-le"
    notes = ["pairs.tsv: UTF-16LE without a byte order mark"] if is_assumed else []
    for _ in range(2):  # the second time from the cache
        assert texts(path) == (PAGES, notes, 0)


def test_columns_of_any_name_are_read_and_the_error_gives_the_line_to_paste(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("English,Chinese,Seen\nhello,ni hao,2024-01-01\nbye,zai jian,\n")
    with pytest.raises(DataError) as error:
        read(path, EN_ZH, "stop")
    assert error.value.message == "'a.csv' has no columns 'en' and 'zh'"
    assert error.value.fix == "--set 'data.columns=[English=source, Chinese=target]'"
    columns = {"english": "source", "chinese": "target"}
    layout = Layout("en", "zh", 3, None, columns)
    assert texts(path, layout)[0] == [("a.csv:2", "ni hao"), ("a.csv:3", "zai jian")]
    with pytest.raises(DataError, match="no column is named 'englisch'") as error:
        read(path, Layout("english", "chinese", 3, None, {"englisch": "ignore"}), "stop")
    assert error.value.did_you_mean == "English"
    path.write_text("English\nhello\n")  # to predict
    without = Layout("en", None, 3, None, columns)
    assert [p.document for p in read(path, without, "stop").pages] == ["a.csv:2"]
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"id": "a-1", "English": "hello", "Chinese": "ni hao"}\n')
    assert texts(lines, layout)[0] == [("a", "ni hao")]


def test_a_file_that_changes_while_it_is_trained_on_changes_no_page(pairs):
    path = pairs()
    page = read(path, EN_ZH, "stop").pages[-1]
    path.write_text("{}")
    assert page.target() == "这是第39段。"


def test_no_table_of_another_family_is_taken_for_pairs(tmp_path):
    points = ",".join(map(str, range(1, 201)))
    headers = [f"patient_id,age,intensity,rate,fmp,{points}", "onset_s,duration_s,text"]
    for header in (*headers, "id,question,answer", "text"):
        path = Path(tmp_path / "a.csv")
        path.write_text(f"{header}\n")
        assert formats.recognize(path) is None
