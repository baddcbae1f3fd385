from functools import partial
from math import isnan
from pathlib import Path

import numpy as np
import pytest

from gearshift.models.abr.config import Data
from gearshift.models.abr.readers import table as tables
from gearshift.models.abr.readers.table import find_columns
from gearshift.models.abr.responses import UNKNOWN_CLASS, ResponseReading
from tests.models.errors import error_of

HEADS = ["Patient_ID", "Age", "Intensity", "Rate", "Fmp", "hear_loss", "v_latency", "v_amplitude"]
POINTS = [str(point) for point in range(1, 201)]


def line(patient="7", loss="0", latency="5.6", amplitude="0.4", extra=(), points=None):
    facts = [patient, "40", "80", "11.1", "3.2", loss, latency, amplitude, *extra]
    return [*facts, *(points or [f"{n / 1000}" for n in range(200)])]


@pytest.fixture
def table(tmp_path):
    def write(lines, heads=HEADS, extra=(), name="export.csv"):
        path = tmp_path / name
        every = [[*heads, *extra, *POINTS], *lines]
        path.write_text("\n".join(",".join(cells) for cells in every), encoding="utf-8-sig")
        return path

    return write


def read(path, declared=(), has_labels=True):
    reading = ResponseReading(Data(columns=list(declared)), has_labels)
    return list(tables.read(path, path.name, reading)), reading


def test_a_line_is_a_response_with_its_examination_facts(table):
    (row,), reader = read(table([line(loss="4")]))
    assert (row.patient, row["age"], row["level"], row["rate"], row["fmp"]) == (
        "patient 7",
        40,
        80,
        11.1,
        3.2,
    )
    assert (row.target, row["exists"], row["latency"], row["amplitude"]) == (4, 1, 5.6, 0.4)
    assert isnan(row["threshold"]) and row.where == "export.csv:2"
    np.testing.assert_allclose(row.signal, np.arange(200) / 1000, rtol=1e-6)
    assert reader.bad_records.rows == []


def test_without_labels_no_column_of_them_is_required_or_read(table):
    (row,), reader = read(table([line(loss="9", latency="soon")]), has_labels=False)
    assert (row.target, row["age"], row["level"]) == (UNKNOWN_CLASS, 40, 80)
    assert isnan(row["exists"]) and isnan(row["latency"]) and reader.bad_records.rows == []
    heads = ["patient_id", "Intensity"]
    (row,), _ = read(table([["7", "60", *POINTS]], heads=heads), has_labels=False)
    assert row["level"] == 60


def test_a_declared_column_is_read_and_an_ignored_one_is_not(table):
    heads = ["Subject", "Age", "Stim level", "Rate", "Fmp", "Loss", "v_latency", "v_amplitude"]
    declared = ("subject=patient_id", "Stim Level=intensity", "Loss=hear_loss", "V_Latency=ignore")
    (row,), reader = read(table([line(loss="2")], heads=heads), declared)
    assert (row.patient, row["level"], row.target) == ("patient 7", 80, 2)
    assert isnan(row["exists"])
    assert reader.notes == []
    both = table([line()], heads=[*HEADS[:-2], "X", "Y"])
    assert "intensity=ignore" in error_of(read, both, ["age=intensity"]).fix.lower()


def test_an_empty_latency_means_no_wave_and_no_column_an_unknown_one(table):
    rows, _ = read(table([line(latency=latency) for latency in ("", "0", "-1", " ")]))
    for row in rows:
        assert row["exists"] == 0 and isnan(row["latency"]) and isnan(row["amplitude"])
    (row,), reader = read(table([line()], heads=[*HEADS[:-2], "Other", "More"]))
    assert reader.notes == ["export.csv: columns that are not read: Other, More"]
    assert len(rows) == 4 and isnan(row["exists"]) and isnan(row["latency"])


def test_other_polarities_and_many_rejected_sweeps_are_left_out(table):
    lines = [
        line(extra=("Alternating", "3")),
        line(extra=("Rarefaction", "3")),
        line(extra=("alternate", "100")),
        line(extra=("", "")),
    ]
    rows, reader = read(table(lines, extra=("Polarity", "Rejected")))
    assert len(rows) == 2 and (
        reader.left_out["other_polarity"],
        reader.left_out["many_rejected"],
    ) == (1, 1)


def test_a_response_without_a_patient_is_its_own_group(table):
    rows, reader = read(table([line(patient=""), line(patient=""), line(patient="2")]))
    assert len({row.patient for row in rows}) == 3 and reader.left_out["without_patient"] == 2
    # Never a valid patient name.
    assert rows[0].patient == "no patient: export.csv:2"


def test_a_broken_line_is_one_bad_record_and_the_others_are_read(table):
    broken = [line(loss="9"), line(latency="late"), line(points=["x"] * 200)]
    rows, reader = read(table([*broken, line()]))
    assert len(rows) == 1
    for number, message in enumerate(
        (
            "hear_loss '9' is not one of 0 normal, 1 neuropathy",
            "v_latency 'late' is not a number",
            "1 'x' is not a number",
        )
    ):
        where, problem = reader.bad_records.rows[number]
        assert where == f"export.csv:{number + 2}" and message in problem


def test_a_workbook_gives_the_same_rows_as_text(table, tmp_path):
    from openpyxl import Workbook

    lines = [line(), line(patient="8", loss="3", latency="")]
    book = Workbook()
    book.active.append([*HEADS, *range(1, 201)])
    for cells in lines:
        book.active.append([float(c) if c else None for c in cells])
    book.save(tmp_path / "export.xlsx")
    as_text, as_book = read(table(lines))[0], read(tmp_path / "export.xlsx")[0]
    for a, b in zip(as_text, as_book, strict=True):
        assert (a.target, a["exists"], a["level"]) == (b.target, b["exists"], b["level"])
        np.testing.assert_allclose(a.signal, b.signal)
    assert [row.patient for row in as_book] == [row.patient for row in as_text]


@pytest.mark.parametrize(
    ("heads", "declared", "lacks"),
    [
        (["Subject", "Intensity", "hear_loss"], [], "patient_id"),
        (["patient_id", "Level (dB)", "hear_loss"], ["Level (dB)=intensity"], None),
        (["patient_id", "Stim-level: 1, 'left' ear", "hear_loss"], [], "intensity"),
        (["patient_id", "intensity", "Intensity", "hear_loss"], [], "one column of each meaning"),
    ],
)
def test_a_column_has_its_documented_name_or_that_of_the_setting(heads, declared, lacks):
    reading = ResponseReading(Data(columns=declared))
    columns = partial(find_columns, [*heads, *POINTS], Path("a.csv"), reading)
    if lacks is None:
        assert columns()["intensity"] == 1 and columns()["200"] == 202
        return
    error = error_of(columns)
    assert error.where == "a.csv" and lacks in error.message + error.allowed
    assert (
        any(head in error.message for head in heads) and "data.columns=[" in error.fix + error.hint
    )


@pytest.mark.parametrize("count", [201, 256, 1000])
def test_more_points_than_a_response_has_are_refused(count):
    # The first 200 of 256 points in 10 ms are 7.8 ms: latencies would be 22 % wrong.
    points = [str(point) for point in range(1, count + 1)]
    names, path = ["patient_id", "intensity", *points], Path("a.csv")
    error = error_of(find_columns, names, path, ResponseReading(Data()))
    assert error.where == "a.csv" and "201" in error.message
    reading = ResponseReading(Data(columns=[f"{point}=ignore" for point in points[200:]]))
    assert find_columns(names, path, reading)["200"] == 201


def test_a_table_of_latencies_without_hearing_loss_is_read(table):
    heads = ["patient_id", "intensity", "v_latency"]
    (row,), _ = read(table([["7", "60", "5.5", *line()[-200:]]], heads=heads))
    assert (row.target, row["latency"], row["exists"]) == (UNKNOWN_CLASS, 5.5, 1)
