import pytest

from gearshift.models.eeg_text.readers.tables import pairs
from tests.models.errors import error_of

PAIRS = {"1": "the old man", "2": "a child"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"1": "the old man", "2": "a child"}'),
        ("a.csv", "event,text\n1,the old man\n2,a child\n"),
        ("a.tsv", "code\tsentence\n1\tthe old man\n1\tthe old man\n2\ta child\n"),
    ],
)
def test_an_object_or_a_table_of_two_columns_has_pairs(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert pairs(str(tmp_path / name), "data.texts") == PAIRS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"1": "the old man", "1": "a child"}'),
        ("a.json", '[["1", "the old man"]]'),
        ("a.json", '["ab"]'),
        ("a.json", '{"1": 2}'),
        ("a.json", "{}"),
        ("a.json", "7"),
        ("a.csv", "event,text,more\n1,the old man,2\n"),
        ("a.csv", "event,text\n1,the old man\n1,a child\n"),
        ("a.csv", "event,text\n"),
    ],
)
def test_anything_else_is_an_error_of_the_setting(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert error_of(pairs, str(tmp_path / name), "data.texts").where == "data.texts"
