"""Rows and files that cannot be used, beside those of test_bad_input.py."""

import json
import os

import pytest

from models.base import DataError
from models.language.readers.corpus import read_corpus


def told(path, answers=None, on_bad="stop"):
    with pytest.raises(DataError) as error:
        read_corpus(path, answers, on_bad)
    return str(error.value).replace(str(path.parent), "FOLDER")


GOOD = json.dumps({"text": "fine"}) + "\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": NaN}', "no usable text under the keys text; legal  text; input, output;"),
        ('{"input": "a", "output": NaN}', "the answer is float, not text"),
        ('{"input": null, "output": "b"}', "the request is NoneType, not text"),
        (
            '{"text": "\\ud800"}',
            "half of a surrogate pair (\\ud800 to \\udfff), which is no character",
        ),
        ('{"\\udc00": 1, "text": "x"}', "half of a surrogate pair"),
        ("[" * 100_000, "no JSON: "),
        ('{"text": ' + "9" * 5000 + "}", "no "),  # Python 3.10.0 reads it as a number
        ('{"text": "cut', "no JSON: Unterminated string starting at at column 10"),
        ('{"messages": {"role": "user"}}', "messages is no list of {role, content}"),
        ('{"messages": [1]}', "message 1: None is no role; legal  system, user, assistant, tool"),
        ('"text"', "str, not an object; legal keys  text;"),
        ("\x00", "no JSON: Expecting value at column 1"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_with_its_place(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD + line + "\n", encoding="utf-16")  # where a zero is a character
    assert told(path).startswith(f"1 of 2 rows cannot be used\n  where         a.jsonl:2: {reason}")
    left = read_corpus(path, None, "skip")
    assert len(left) == 1 and left.left_out == {"skipped_rows": 1}


def test_both_halves_of_a_surrogate_pair_are_one_character(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "\\ud83d\\ude42"}\n')
    [(_, document)] = read_corpus(path, None, "stop").documents()
    assert document.text == "🙂"


def test_a_header_that_csv_cannot_take_is_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x" * 200_000 + ",output\n")
    assert told(path).startswith(
        "'a.csv' has no pair of columns for request and answer: field larger than field limit"
    )


def test_a_field_that_csv_cannot_take_is_a_bad_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("input,output\na,b\nc," + "x" * 200_000 + "\ne,f\n")
    assert "a.csv:3: field larger than field limit (131072)" in told(path)
    assert len(read_corpus(path, None, "skip")) == 2


def test_a_csv_cut_inside_a_quoted_field_is_a_bad_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('input,output\na,b\n"c,d\ne,f')
    assert "1 of 2 rows cannot be used\n  where         a.csv:3: 1 of 2 columns" in told(path)


def test_a_second_file_that_is_not_there_is_told_by_its_key(tmp_path):
    path = tmp_path / "a.nl"
    path.write_text("a\n")
    allowed = "two files: line N of data.answers answers line N of data.path"
    assert told(path, tmp_path / "b") == (
        f"data.answers 'FOLDER/b' is no file\n  where         looked for FOLDER/b\n  allowed       {allowed}"
    )
    (tmp_path / "b").write_text("")
    assert told(path, tmp_path / "b").startswith("'FOLDER/b' is empty\n")
    (tmp_path / "folder").mkdir()
    assert told(tmp_path / "folder", path).startswith("data.path 'FOLDER/folder' is no file\n")


@pytest.mark.parametrize(("asked", "answered"), [(1, 3), (3, 1), (4, 5)])
def test_files_of_unequal_length_are_told_with_both(tmp_path, asked, answered):
    (tmp_path / "a").write_text("x\n" * asked)
    (tmp_path / "b").write_text("y\n" * answered)
    assert told(tmp_path / "a", tmp_path / "b").startswith(
        f"'FOLDER/a' has {asked} lines and 'FOLDER/b' has {answered}\n"
    )


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert told(tmp_path / "pipe") == (
        "data.path 'FOLDER/pipe' is no file that can be read more than once\n"
        "  where         looked for FOLDER/pipe\n"
        "  allowed       a file on disk, not a pipe or a device"
    )


def test_a_file_that_goes_bad_late_leaves_nothing_of_it_behind(tmp_path):
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_bytes(b"good words\n" * 200_000 + b"\xff")
    (tmp_path / "c.txt").write_text("fine, too")
    left = read_corpus(tmp_path, None, "skip")
    assert [document.text for _, document in left.documents()] == ["fine", "fine, too"]
    assert list(left.index.groups) == ["a.txt", "c.txt"]
    assert left.left_out == {"skipped_rows": 1}


def test_rows_of_a_file_that_goes_bad_late_are_forgotten_with_their_faults(tmp_path):
    row = b'{"input": "a", "output": "b"}\n'
    (tmp_path / "a.jsonl").write_bytes(row)
    (tmp_path / "b.jsonl").write_bytes(b'{"input": "c", "output": "d"}\n[]\n\xff')
    (tmp_path / "c.jsonl").write_bytes(row.replace(b"a", b"e"))
    left = read_corpus(tmp_path, None, "skip")
    assert [exchange.before[-1].text for _, exchange in left.exchanges()] == ["a", "e"]
    assert left.left_out == {"skipped_rows": 1}
