"""Workbooks as spreadsheet programs and libraries write them."""

import re
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import BadRecords
from gearshift.models.common.table import Table
from gearshift.models.common.text_file import TextFile

openpyxl = pytest.importorskip("openpyxl")


def workbook(path, rows, *merged):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for cells in merged:
        book.active.merge_cells(cells)
    book.save(path)


def cells_of(path):
    table = Table(TextFile(path))
    return [table.header, *(list(cells) for _, cells in table.rows(BadRecords("skip")))]


def change_sheet(path, pattern, text):
    """Replace what matches in the first sheet."""
    with ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    name = "xl/worksheets/sheet1.xml"
    changed = re.sub(pattern, text, parts[name])
    assert changed != parts[name]
    with ZipFile(path, "w", ZIP_DEFLATED) as book:
        for each, content in {**parts, name: changed}.items():
            book.writestr(each, content)


def test_a_merged_cell_has_its_value_in_each_row(tmp_path):
    path = tmp_path / "a.xlsx"
    rows = [["patient", "level"], ["P1", 1], [None, 2], [None, 3], ["P2", 4]]
    workbook(path, rows, "A2:A4")
    expected = [["P1", 1], ["P1", 2], ["P1", 3], ["P2", 4]]
    assert cells_of(path) == [["patient", "level"], *expected]


def test_formulas_without_a_stored_value_are_an_error_with_their_number(tmp_path):
    path = tmp_path / "a.xlsx"
    workbook(path, [["a", "b"], [1, "=A2+1"], [2, "=A3+1"]])
    with pytest.raises(DataError, match="2 formulas") as raised:
        cells_of(path)
    assert raised.value.where == str(path)
    # One has a number now, and the other an empty text.
    change_sheet(path, rb"(<f>A2\+1</f>)<v ?/>|(<f>A2\+1</f>)<v></v>", rb"\1\2<v>2</v>")
    with pytest.raises(DataError, match="1 formulas"):
        cells_of(path)
    change_sheet(path, rb'<c r="B3"', rb'<c r="B3" t="str"')
    assert cells_of(path) == [["a", "b"], [1, 2], [2, None]]


def test_wrong_dimensions_of_a_sheet_hide_no_cells(tmp_path):
    path = tmp_path / "a.xlsx"
    workbook(path, [["a", "b"], [1, 2]])
    change_sheet(path, rb'<dimension ref="A1:B2"', rb'<dimension ref="A1:A1"')
    assert cells_of(path) == [["a", "b"], [1, 2]]
