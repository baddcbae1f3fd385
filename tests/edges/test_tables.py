"""A table is read as it is, whatever its delimiter, encoding and cells are, or it is refused."""

import gzip
import re
from itertools import product

import numpy as np
import pytest
from openpyxl import Workbook

from models.abr.config import Data
from models.abr.readers.files import read_responses
from models.abr.responses import UNKNOWN_CLASS
from models.common.data_files import BadRecords
from models.common.table import open_table
from models.language.generate import read_prompts
from models.language.readers.corpus import read_corpus
from tests.models.errors import error_of
from tests.models.language.reading import pairs

ROWS = [("prompt", "response"), *((f"größe {i}, a; b", f"antwort\t{i}") for i in range(40))]


def table(delimiter=",", end="\n", quote='"', rows=ROWS):
    cells = (delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    return "".join(f"{row}{end}" for row in cells)


def read(path):
    """The names, the rows, the problems and the notes of a table."""
    found, bad = open_table(path), BadRecords()
    rows = [tuple(cells) for _, cells in found.rows(bad)]
    return tuple(found.header), rows, bad.rows, list(found.notes)


def write(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def test_the_delimiter_is_found_in_the_content(tmp_path):
    for delimiter, end, suffix in product(",;\t|", ("\n", "\r\n", "\r"), ("csv", "tsv")):
        path = write(tmp_path / f"a.{suffix}", table(delimiter, end))
        assert read(path) == (ROWS[0], ROWS[1:], [], []), (delimiter, end, suffix)


AB = ("a", "b")
DOUBLED = "text follows a quoted cell: each quote within a cell is doubled"
CONTENTS = {
    "another delimiter in a quoted name": ('"name; first",age\na,1\nb; c,2\n', ("name; first", "age"), [("a", "1"), ("b; c", "2")]),
    "a line that names the delimiter": ("sep=;\r\na,x;b\r\n1;2\r\n", ("a,x", "b"), [("1", "2")]),
    "line ends in quotes": ('a,b\n"one\n\ntwo","say ""x"""\n', AB, [("one\n\ntwo", 'say "x"')]),
    "quotes within a cell without quotes": ('a,b\n6" nails,a "word"\n', AB, [('6" nails', 'a "word"')]),
    "blank rows": ("\na,b\n,\n1,2\n\n\"\",\"\"\n , \n", AB, [("1", "2")]),
    "a blank row before the header": ("\"\",\"\"\na,b\n1,2\n", AB, [("1", "2")]),
    "empty columns at the end of the header": ("a;b;;;\n1;2\n3;;\n", AB, [("1", "2"), ("3", "")]),
    "empty columns at the end of rows": ("a;b\n1;2;;;\n3;;;;\n", AB, [("1", "2"), ("3", "")]),
    "invisible characters around names": ("\ufeff\ufeffa,b\xa0 \n1,2\n", AB, [("1", "2")]),
    "two byte order marks": ("\ufeff\ufeff\ufeff\u200ba,b\u200b\n1,2\n", AB, [("1", "2")]),
    "another number of cells": ("a,b\n1\n1,2\n1,2,3\n1,2,,\n", AB, [("1", "2"), ("1", "2")], [("a.csv:2", "1 of 2 columns"), ("a.csv:4", "3 of 2 columns")]),
    "cells below no name": ("a,b,\nx,y,z\n4,5,\n", AB, [("4", "5")], [("a.csv:2", "3 of 2 columns")]),
    **{
        f"text after a quoted cell: {cell}": (f'a,b\n1,2\n{cell},3\n"4","5\n6 ""7"""\n', AB, [("1", "2"), ("4", '5\n6 "7"')], [("a.csv:3", DOUBLED)])
        for cell in ('"a \\"b\\" c"', '"6" nails"', '"6" nails', '"a"b', '"one\n"two"')
    },
}  # fmt: skip
"""What a file holds: its header, rows and, in some, bad rows."""


@pytest.mark.parametrize("name", CONTENTS)
def test_a_table_is_read_as_it_is(tmp_path, name):
    content, header, rows, *bad = CONTENTS[name]
    assert read(write(tmp_path / "a.csv", content))[:3] == (header, rows, *(bad or [[]]))


CHINESE = [("prompt", "response"), *((f"一{i}号问题", f"答案{i}") for i in range(40))]


@pytest.mark.parametrize(
    ("encoding", "rows", "assumed"),
    [
        ("utf-16", ROWS, None),
        ("utf-16-le", ROWS, "utf_16_le"),
        ("utf-16-be", ROWS, "utf_16_be"),
        ("utf-32-le", ROWS, "utf_32_le"),
        ("cp1252", ROWS, "cp1252"),
        ("cp1251", [("prompt", "response"), *((f"да {n}", "нет, спасибо") for n in range(20))], "cp1251"),
        ("gb18030", CHINESE, "gb18030"),
    ],
)
def test_the_encoding_is_of_the_mark_or_utf_8_or_assumed_with_a_note(tmp_path, encoding, rows, assumed):
    path = write(tmp_path / "a.csv", table(rows=rows), encoding)
    notes = [f"{assumed}, since it is not UTF-8"] if assumed else []
    assert read(path) == (rows[0], rows[1:], [], notes)
    assert [pair[1] for pair in pairs(read_corpus(path, None, "stop"))] == [r[1] for r in rows[1:]]


def test_damaged_utf_8_and_two_delimiters_in_a_header_are_refused(tmp_path):
    for raw, where in (
        (table().encode().replace("ö".encode(), b"\xf0\xb6", 1), "a.csv:2, byte"),
        (b"name; first,age\na,1\n", "a.csv:1"),
    ):
        assert where in error_of(read, write(tmp_path / "a.csv", raw)).where


@pytest.mark.parametrize("size", [131_072, 131_073])
def test_a_cell_of_any_length_is_read_for_training_and_use(tmp_path, size):
    path = write(tmp_path / "a.csv", f'text\nshort\n"{"x " * (size // 2)}"\nlast\n')
    assert len(read_corpus(path, None, "stop")) == 3
    assert len(read_prompts(path, {}, "stop")) == 3


PACKED = gzip.compress(table().encode(), mtime=0)
NO_TEXTS = {
    "cut gzip": PACKED[:60],
    "gzip with a wrong checksum": PACKED[:-8] + bytes(8),
    "ZIP": b"PK\x03\x04" + bytes(40),
}


@pytest.mark.parametrize("kind", NO_TEXTS)
def test_what_is_no_text_is_refused(tmp_path, kind):
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.txt"):
        error = error_of(read_corpus, write(tmp_path / name, NO_TEXTS[kind]), None, "stop")
        assert error.fix and name in error.message


def numbers(tmp_path, *cells, delimiter=";"):
    rows = [("x", "y"), *((cell, "1") for cell in cells)]
    quote = '"' if delimiter == "," else ""
    found = open_table(write(tmp_path / "a.csv", table(delimiter, quote=quote, rows=rows)))
    return [found.number(cells[0], "x") for _, cells in found.rows(BadRecords())], found.notes


def test_decimal_commas_and_points_are_read(tmp_path):
    for delimiter, cells, values in (
        (";", ["0,9417", "-1,5e-3", "7", "1,234"], [0.9417, -0.0015, 7, 1.234]),
        ("\t", ["0,5"], [0.5]),
        (",", ["0.941", "1e3", ".5", "+2."], [0.941, 1000, 0.5, 2]),
        (";", ["0.941", "7"], [0.941, 7]),
    ):
        found, notes = numbers(tmp_path, *cells, delimiter=delimiter)
        assert found == values, cells
        assert notes == (["decimal comma"] if any("," in cell for cell in cells) else []), cells


@pytest.mark.parametrize(
    ("delimiter", "cells", "problem"),
    [
        (",", ["1,234"], "x '1,234' is not a number"),
        (";", ["1.234,5"], "x '1.234,5' is not a number"),
        (";", ["1,234,567"], "'1,234,567' is not a number"),
        (";", ["0,5", "0.5"], "x '0.5': the table has decimal commas and decimal points"),
        (";", ["0.5", "0,5"], "x '0,5': the table has decimal commas and decimal points"),
        (";", ["1_000"], "is not a number"),
        (";", ["٣"], "is not a number"),
        (";", ["inf"], "is not a number"),
        (";", ["five"], "x 'five' is not a number"),
    ],
)
def test_a_cell_with_two_readings_is_no_number(tmp_path, delimiter, cells, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        numbers(tmp_path, *cells, delimiter=delimiter)


POINTS = [str(point) for point in range(1, 201)]


def responses(path, losses=("0", "1"), delimiter=";", comma=True, quote="", **names):
    """Write a table of two responses of each patient, and read it with abr."""
    rng = np.random.default_rng(0)
    rows = [("patient_id", "intensity", "hear_loss", *POINTS)]
    for (patient, loss), level in product(enumerate(losses), ("80", "60")):
        cells = [f"{x:.4f}".replace(".", "," if comma else ".") for x in rng.normal(size=200)]
        rows.append((f"p{patient}", level, loss, *cells))
    content = table(delimiter, rows=rows, quote=quote)
    return read_responses(str(write(path, content)), Data(**names))


@pytest.mark.parametrize(("delimiter", "comma"), [(";", True), (",", False)])
def test_responses_are_equal_with_decimal_commas_and_points(tmp_path, delimiter, comma):
    found = responses(tmp_path / "a.csv", delimiter=delimiter, comma=comma)
    wanted = np.random.default_rng(0).normal(size=(4, 200))
    np.testing.assert_allclose(found.signal, wanted, atol=6e-5)
    assert found.notes == (["a.csv: decimal comma"] if comma else [])


def test_labels_of_classes_get_their_meaning_from_the_setting(tmp_path):
    losses = ("SNHL", "norml", "2", "NA", "")
    assert "--set 'data.classes=[LABEL=unknown]'" in error_of(responses, tmp_path / "a.csv", losses).fix
    found = responses(
        tmp_path / "a.csv", losses, classes=["snhl=sensorineural", "NORML=normal", "na=unknown"]
    )
    assert found.target.tolist() == [2, 2, 0, 0, 2, 2, *[UNKNOWN_CLASS] * 4]


def test_a_sheet_is_read_as_a_table_of_text_and_others_are_named(tmp_path):
    book = Workbook()
    book.active.title = "first"
    for row in [[None], ["a", "b", "c"], [1, 2.5, "0,5"], [None, " "], ["2", 3]]:
        book.active.append(row)
    for name in ("notes", "more"):
        book.create_sheet(name).append(["text"])
    book.save(tmp_path / "a.xlsx")
    found, bad = open_table(tmp_path / "a.xlsx"), BadRecords()
    cells = [(line, [found.number(x, "x") for x in row]) for line, row in found.rows(bad)]
    np.testing.assert_equal(cells, [(3, [1, 2.5, 0.5]), (5, [2, 3, np.nan])])
    assert not bad.rows
    assert found.notes == ["decimal comma", "sheet 'first'; 2 other sheets are not read"]
