import numpy as np
import pytest

from gearshift.models.abr.config import Data
from gearshift.models.abr.formats import FORMATS, recognize
from gearshift.models.abr.readers.files import read_responses
from gearshift.models.base import DataError
from tests.models.errors import error_of


def read(path, on_bad="stop"):
    return read_responses(str(path), Data(on_bad=on_bad))


def test_a_folder_is_read_at_any_depth_and_other_files_are_ignored(tmp_path, series, analyzed):
    first = series("ABR-1-1", seed=1)
    analyzed(first, {20: 5.5, 40: 5.2, 60: 4.9})
    (tmp_path / "deep").mkdir()
    series("ABR-2-1", seed=2).rename(tmp_path / "deep" / "ABR-2-1")
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / ".hidden").write_bytes(b":RUN-1")
    found = read(tmp_path)
    assert sorted(set(found.patient)) == ["ABR-1-1", "deep/ABR-2-1"] and len(found) == 6
    assert np.isfinite(found.labels["latency"]).sum() == 3
    assert found.origin.species == "animal" and found.origin.window_ms == 8.5
    assert found.signal.dtype == np.float32 and found.signal.shape == (6, 200)


def test_a_recording_under_two_names_is_used_once(tmp_path, series):
    path = series("ABR-1-1")
    (tmp_path / "copy of ABR-1-1").write_bytes(path.read_bytes())
    found = read(tmp_path)
    assert set(found.patient) == {"ABR-1-1"} and found.reading.left_out["duplicates"] == 3


def test_duplicate_rows_are_used_once_and_those_of_a_second_rater_stay(people):
    signal = np.random.default_rng(0).standard_normal(200)
    rows = [(1, 80, 0, signal), (1, 80, 0, signal), (1, 80, 2, signal), (2, 80, 0, signal)]
    found = read(people(rows))
    assert found.patient.tolist() == ["patient 1", "patient 1"]
    assert found.target.tolist() == [0, 2]
    assert found.reading.left_out == {"duplicates": 2}


def test_animals_and_people_are_not_mixed(tmp_path, people, series):
    series("ABR-1-1")
    people([(1, 80, 0, np.ones(200))])
    assert f"{FORMATS[0]}; {FORMATS[1]}" in error_of(read, tmp_path).message


def test_bad_files_stop_the_start_or_are_counted(tmp_path, series):
    series("ABR-1-1")
    broken = series("ABR-2-1", seed=1)
    broken.write_bytes(broken.read_bytes().replace(b":LEVELS:", b":LAYERS:"))
    assert str(broken) in error_of(read, tmp_path).where
    found = read(tmp_path, "skip")
    assert len(found) == 3 and found.reading.left_out["skipped"] == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("value", "level", "problem"),
    [
        (1e300, 80, "signal is inf, outside -1e+06 to 1e+06 µV"),
        (-3e6, 80, "signal is -3e+06, outside -1e+06 to 1e+06 µV"),
        (0, 1e30, "level is 1e+30, outside -50 to 200 dB"),
        (0, "inf", "intensity 'inf' is not a number"),
    ],
)
def test_values_that_no_instrument_gives_make_a_bad_row(people, value, level, problem):
    signal = np.random.default_rng(0).standard_normal(200)
    bad = np.where(np.arange(200) == 7, value, signal)
    path = people([(1, 80, 0, signal), (2, level, 0, bad)])
    with pytest.raises(DataError) as error:
        read(path)
    assert error.value.where == f"people.csv:3: {problem}"
    assert len(read(path, "skip")) == 1


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("ABR-1-1", b":RUN-3\t", 0),
        ("a.CSV", b"", 1),
        ("a.xlsx", b"", 1),
        ("a.set", b"", 2),
        ("a.edf", b"", 2),
        ("a.txt", b"text", None),
    ],
)
def test_a_format_is_recognized_by_name_or_first_bytes(tmp_path, name, content, form):
    path = tmp_path / name
    path.write_bytes(content)
    wanted = None if form is None else FORMATS[form]
    assert recognize(path) == recognize(tmp_path) == wanted
