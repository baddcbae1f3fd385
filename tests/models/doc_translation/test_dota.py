import json

import pytest
from PIL import Image

from gearshift.models.doc_translation.readers.dota import read
from gearshift.models.doc_translation.readers.page import without_number
from tests.models.errors import error_of


def test_pages_of_the_lists_are_read_with_their_image_and_text(dota):
    found = read(dota, "zh", "file", "stop")
    assert len(found.pages) == 20 and found.language == "zh"
    page = found.pages[3]
    assert (page.name, page.document) == ("2101.00001_2", "2101.00001")
    assert page.target() == "# 第3页\n\n正文。" and page.image().size == (120, 160)
    assert {side: len(names) for side, names in found.splits.items()} == {
        "train": 8,
        "val": 1,
        "test": 1,
    }
    assert read(dota, "en", "file", "stop").pages[3].target().startswith("# Page 3")


def test_an_image_under_two_names_is_read_once(dota):
    images = dota / "imgs"
    (images / "2101.00009_1.png").write_bytes((images / "2101.00000_2.png").read_bytes())
    found = read(dota, "zh", "article", "stop")
    assert len(found.pages) == 19 and "2101.00009_1" not in {page.name for page in found.pages}
    assert [name for name, _ in found.skipped] == ["2101.00009_1"]


def test_an_article_is_a_name_without_the_number_of_its_page():
    names = ["2101.00027_3", "a-b-12", "2101.00027", "7"]
    assert [without_number(name) for name in names] == ["2101.00027", "a-b", "2101.00027", "7"]


def test_an_article_in_two_splits_of_the_split_file_is_an_error(dota):
    path = dota / "split_dataset.json"
    split = json.loads(path.read_text())
    split["test_name_list"].append(split["train_name_list"].pop())
    path.write_text(json.dumps(split))
    error = error_of(read, dota, "zh", "file", "stop")
    assert "'2101.00007'" in error.message
    assert (error.where, error.fix) == (str(path), "--set data.split=article")
    assert read(dota, "zh", "article", "stop").splits is None


def test_incomplete_and_unlisted_pages_are_skipped_and_listed(dota):
    (dota / "zh_mmd" / "2101.00000_1.mmd").unlink()
    (dota / "zh_mmd" / "2101.00000_2.mmd").write_text("")
    (dota / "imgs" / "2101.00001_1.png").unlink()
    Image.new("L", (9, 9)).save(dota / "imgs" / "2101.00099_1.png")
    found = read(dota, "zh", "file", "stop")
    assert len(found.pages) == 17
    assert dict(found.skipped) == {
        "2101.00099_1": "not in split_dataset.json",
        "2101.00000_1": "zh_mmd/2101.00000_1.mmd is missing or empty",
        "2101.00000_2": "zh_mmd/2101.00000_2.mmd is missing or empty",
        "2101.00001_1": "imgs/2101.00001_1.png is missing or empty",
    }
    assert found.counts == {"skipped_pages": 0, "left_out_pages": 4}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_texts_and_lists_of_other_encodings_are_read_with_a_note(dota, encoding):
    for path in (dota / "zh_mmd" / "2101.00002_1.mmd", dota / "split_dataset.json"):
        text = "größer" if path.suffix == ".mmd" else path.read_text()
        path.write_bytes(text.encode(encoding))
    found = read(dota, "zh", "file", "stop")
    page = next(page for page in found.pages if page.name == "2101.00002_1")
    assert page.target() == page.target() == "größer"
    assumed = {"utf-16": 0, "utf-16-le": 1, "latin-1": 1}
    assert len(found.notes) == assumed[encoding]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"train_name_list": ["a_1"]}',
        '{"train_name_list": [1], "valid_name_list": [], "test_name_list": []}',
        '{"train_name_list": ["../a"], "valid_name_list": [], "test_name_list": []}',
    ],
)
def test_an_invalid_split_file_is_an_error(dota, text):
    path = dota / "split_dataset.json"
    path.write_text(text)
    error = error_of(read, dota, "zh", "file", "stop")
    assert str(path) in error.message and error.where == "data.path"
    assert "train_name_list, valid_name_list, test_name_list" in error.allowed


@pytest.mark.parametrize("content", [b"cut", b"\x89PNG\r\n\x1a\n cut"])
def test_an_incomplete_image_is_an_invalid_page(dota, content):
    (dota / "imgs" / "2101.00003_1.png").write_bytes(content)
    assert "2101.00003_1.png" in error_of(read, dota, "zh", "file", "stop").where
    found = read(dota, "zh", "file", "skip")
    assert len(found.pages) == 19 and found.counts["skipped_pages"] == 1
