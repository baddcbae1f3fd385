import shutil
from math import inf, isnan, nan
from pathlib import Path

import numpy as np
import pytest

from gearshift.models.abr.config import Data
from gearshift.models.abr.readers import epl
from gearshift.models.abr.responses import ResponseReading

SAMPLE = Path(__file__).parents[5] / "shared" / "data" / "abr" / "ABR-52-3"


def read(path):
    reading = ResponseReading(Data())
    return list(epl.read(path, path.name, reading)), reading


def test_a_series_has_a_row_for_each_level_but_silent_ones_which_are_counted(series):
    rows, reader = read(series(levels=(20, 40, 60)))
    assert [row["level"] for row in rows] == [20, 40, 60]
    assert {row.patient for row in rows} == {"ABR-1-1"}
    assert rows[0]["rate"] == 40 and isnan(rows[0]["age"]) and isnan(rows[0]["exists"])
    assert rows[0].signal.shape == (200,) and reader.bad_records.rows == []
    rows, reader = read(series(silent=1))
    assert [row["level"] for row in rows] == [20, 60] and reader.left_out == {"silent_levels": 1}


def test_runs_of_one_animal_are_one_group(series):
    for name, group in (("ABR-1-3", "ABR-1"), ("ABR-13", "ABR-13"), ("ABR-1-13", "ABR-1-13")):
        assert {row.patient for row in read(series(name))[0]} == {group}  # the run is 3


def test_a_point_is_the_mean_over_its_interval(series):
    path = series()
    rows, _ = read(path)
    data = np.loadtxt(path, encoding="iso-8859-1", skiprows=4)[:, 1]
    # Each point represents 4.25 of the 850 samples.
    whole = sum(data[:4]) + 0.25 * data[4]
    assert rows[1].signal[0] == pytest.approx(whole / 4.25, rel=1e-4)
    assert rows[1].signal.mean() == pytest.approx(data[:850].mean(), rel=1e-3, abs=1e-6)


def test_marks_of_a_rater_are_labels_and_a_negative_latency_is_no_wave(series, analyzed):
    path = series()
    analyzed(path, {20: -5.1, 40: 5.2, 60: 4.9})
    rows, _ = read(path)
    assert [row["exists"] for row in rows] == [0, 1, 1]
    assert [row["latency"] for row in rows][1:] == [5.2, 4.9] and isnan(rows[0]["latency"])
    assert rows[1]["amplitude"] == 0.7 and {row["threshold"] for row in rows} == {35.0}


def test_each_rater_gives_rows_of_the_same_group(series, analyzed):
    path = series()
    analyzed(path, {20: -1, 40: 5.2, 60: 4.9}, rater="anna-")
    analyzed(path, {20: 6.0, 40: 5.3, 60: 4.8}, threshold=15.0, rater="ben-")
    rows, _ = read(path)
    assert len(rows) == 6
    assert {row.patient for row in rows} == {"ABR-1-1"}
    assert [row["exists"] for row in rows if row["level"] == 20] == [0, 1]


@pytest.mark.parametrize(
    ("count", "threshold", "exists", "known"),
    [
        (1, 35.0, nan, 35.0),
        (1, None, nan, nan),
        (1, inf, nan, nan),
        (5, None, nan, nan),
        (5, inf, 0.0, nan),
    ],
)
def test_threshold_none_is_unknown_and_of_wave_v_infinity_is_no_response(
    series, analyzed, count, threshold, exists, known
):
    path = series()
    analyzed(path, {} if count == 5 else {20: 0, 40: 0, 60: 0}, threshold, count=count)
    rows, reader = read(path)
    assert reader.bad_records.rows == []
    for row in rows:
        found = [row["exists"], row["latency"], row["amplitude"], row["threshold"]]
        np.testing.assert_equal(found, [exists, nan, nan, known])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b":DATA\r", b":DOTA\r"),
        (b":LEVELS:", b":LAYERS:"),
        (b"SAMPLE", b"SIMPLE"),
        (b"sec): 10", b"sec): 0"),
        (b":DATA\r", b":DATA\rnone 1 2\r"),
        (b"\r\n\r", b"\r\n\r:RUN-3\t\r:DATA\r"),
        (b":DATA\r", b":DATA\r1 2\r"),
    ],
)
def test_a_broken_file_is_one_bad_record(series, old, new):
    path = series()
    path.write_bytes(path.read_bytes().replace(old, new))
    rows, reader = read(path)
    assert rows == [] and [where for where, _ in reader.bad_records.rows] == [str(path)]


@pytest.mark.skipif(not SAMPLE.exists(), reason="the shared sample ABR-52-3 is not here")
def test_a_real_recording_matches_its_description(tmp_path):
    path = Path(shutil.copy(SAMPLE, tmp_path))
    rows, reader = read(path)
    assert [row["level"] for row in rows] == [10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80]
    assert rows[0]["rate"] == 40 and reader.bad_records.rows == []
    # Louder responses are larger, far above the noise at 10 dB.
    assert rows[-1].signal.std() > 5 * rows[0].signal.std()
