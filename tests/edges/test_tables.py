"""A table is read as it is, whatever its delimiter, encoding and cells are, or it is refused."""

import re
from itertools import product

import pytest

from gearshift.models.common.data_reports import BadRecords
from gearshift.models.common.table import Table
from gearshift.models.common.text_file import TextFile

ROWS = [("prompt", "response"), *((f"größe {i}, a; b", f"antwort\t{i}") for i in range(40))]


def table(delimiter=",", end="\n", quote='"', rows=ROWS):
    cells = (delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    return "".join(f"{row}{end}" for row in cells)


def read(path):
    """The names, the rows, the problems and the notes of a table."""
    found, bad = Table(TextFile(path)), BadRecords()
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
CONTENTS = {
    "another delimiter in a quoted name": ('"name; first",age\na,1\nb; c,2\n', ("name; first", "age"), [("a", "1"), ("b; c", "2")]),
    "line ends in quotes": ('a,b\n"one\n\ntwo","say ""x"""\n', AB, [("one\n\ntwo", 'say "x"')]),
    "quotes within a cell without quotes": ('a,b\n6" nails,a "word"\n', AB, [('6" nails', 'a "word"')]),
    "blank rows": ("\na,b\n,\n1,2\n\n\"\",\"\"\n , \n", AB, [("1", "2")]),
    "empty columns at the end of rows": ("a;b\n1;2;;;\n3;;;;\n", AB, [("1", "2"), ("3", "")]),
    "another number of cells": ("a,b\n1\n1,2\n1,2,3\n1,2,,\n", AB, [("1", "2"), ("1", "2")], [("a.csv:2", "1 of 2 columns"), ("a.csv:4", "3 of 2 columns")]),
    "cells below no name": ("a,b,\nx,y,z\n4,5,\n", AB, [("4", "5")], [("a.csv:2", "3 of 2 columns")]),
}  # fmt: skip
"""What a file holds: its header, rows and, in some, bad rows."""


@pytest.mark.parametrize("name", CONTENTS)
def test_a_table_is_read_as_it_is(tmp_path, name):
    content, header, rows, *bad = CONTENTS[name]
    assert read(write(tmp_path / "a.csv", content))[:3] == (header, rows, *(bad or [[]]))


STRAY = ('"a \\"b\\" c"', '"6" nails"', '"6" nails', '"a"b', '"one\n two" three')
"""Quoted cells that do not end at a delimiter."""


@pytest.mark.parametrize("cell", STRAY)
def test_after_a_stray_quote_the_next_row_that_parses_is_read(tmp_path, cell):
    path = write(tmp_path / "a.csv", f'a,b\n1,2\n{cell},3\n"4","5"\n6,"7\n8"\n')
    header, rows, bad, _ = read(path)
    assert header == AB and rows == [("1", "2"), ("4", "5"), ("6", "7\n8")]
    assert [place for place, _ in bad] == ["a.csv:3"]


def test_a_quote_that_is_not_closed_takes_the_lines_up_to_the_next_and_names_the_last(tmp_path):
    path = write(tmp_path / "a.csv", 'a,b\n1,2\n"open,3\n4,5\n"6",7\n8,9\n"x')
    _, rows, bad, _ = read(path)
    assert rows == [("1", "2"), ("8", "9")]
    assert [place for place, _ in bad] == ["a.csv:3", "a.csv:7"]
    assert "line 5" in bad[0][1]


def test_a_table_of_damaged_rows_alone_is_read_to_its_end(tmp_path):
    count = 100_000
    path = write(tmp_path / "a.csv", "a,b\n" + '"x"y,1\n' * count + "1,2\n")
    found, bad = Table(TextFile(path)), BadRecords()
    assert [tuple(cells) for _, cells in found.rows(bad)] == [("1", "2")]
    assert bad.rows[0][0] == "a.csv:2"


def numbers(tmp_path, *cells, delimiter=";"):
    rows = [("x", "y"), *((cell, "1") for cell in cells)]
    quote = '"' if delimiter == "," else ""
    found = Table(TextFile(write(tmp_path / "a.csv", table(delimiter, quote=quote, rows=rows))))
    return [found.number(cells[0], "x") for _, cells in found.rows(BadRecords())], found.notes


def test_decimal_commas_and_points_are_read(tmp_path):
    for delimiter, cells, values in (
        (";", ["0,9417", "-1,5e-3", "7", "1,234"], [0.9417, -0.0015, 7, 1.234]),
        ("\t", ["0,5"], [0.5]),
        (",", ["0.941", "1e3", ".5", "+2."], [0.941, 1000, 0.5, 2]),
    ):
        found, notes = numbers(tmp_path, *cells, delimiter=delimiter)
        assert found == values, cells
        assert notes == (["decimal comma"] if any("," in cell for cell in cells) else []), cells


@pytest.mark.parametrize(
    ("delimiter", "cells", "problem"),
    [
        (",", ["1,234"], "x '1,234' is not a number"),
        (";", ["1.234,5"], "x '1.234,5' is not a number"),
        (";", ["0,5", "0.5"], "x '0.5': the table has decimal commas and decimal points"),
        (";", ["inf"], "is not a number"),
        (";", ["five"], "x 'five' is not a number"),
    ],
)
def test_a_cell_with_two_readings_is_no_number(tmp_path, delimiter, cells, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        numbers(tmp_path, *cells, delimiter=delimiter)
