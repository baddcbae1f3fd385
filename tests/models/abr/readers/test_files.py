import sys

import numpy as np
import pytest

from models.abr.formats import FORMATS, recognize
from models.abr.readers.files import Names, read_responses
from models.abr.readers.recordings import Averaging
from models.base import DataError
from tests.models.errors import error_of

AVERAGING = Averaging(1000, 40.0, None)


def read(path, on_bad="stop", columns=()):
    return read_responses(str(path), on_bad, AVERAGING, Names(columns))


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
    assert set(found.patient) == {"ABR-1-1"} and found.left_out["duplicates"] == 3


def test_duplicate_rows_are_used_once_and_those_of_a_second_rater_stay(people):
    signal = np.random.default_rng(0).standard_normal(200)
    rows = [(1, 80, 0, signal), (1, 80, 0, signal), (1, 80, 2, signal), (2, 80, 0, signal)]
    found = read(people(rows))
    assert found.patient.tolist() == ["patient 1", "patient 1"]
    assert found.target.tolist() == [0, 2]
    assert {name: count for name, count in found.left_out.items() if count} == {"duplicates": 2}


def test_animals_and_people_are_not_mixed(tmp_path, people, series):
    series("ABR-1-1")
    people([(1, 80, 0, np.ones(200))])
    assert str(error_of(read, tmp_path)) == (
        f"'{tmp_path}' has more than one format: {FORMATS[0]}; {FORMATS[1]}\n"
        "  where         data.path\n"
        "  allowed       one format, and so one species and one time window\n"
        "  fix           put animals (EPL text) and people (tables, recordings) "
        "into separate folders"
    )


def test_bad_files_stop_the_start_or_are_counted(tmp_path, series):
    series("ABR-1-1")
    broken = series("ABR-2-1", seed=1)
    broken.write_bytes(broken.read_bytes().replace(b":LEVELS:", b":LAYERS:"))
    assert str(error_of(read, tmp_path)) == (
        "1 of 4 files and levels cannot be used\n"
        f"  where         {broken}: the header has no :LEVELS:\n"
        f"  fix           correct {broken}, or skip them with  --set data.on_bad=skip"
    )
    found = read(tmp_path, "skip")
    assert len(found) == 3 and found.left_out["skipped"] == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("value", "level", "problem"),
    [
        (1e300, 80, "the signal has non-finite values"),
        (-3e6, 80, "the signal reaches 3e+06 µV, above 1e+06"),
        (0, 1e30, "level is 1e+30, outside -50 to 200 dB"),
        (0, "inf", "intensity 'inf' is not a number"),
    ],
)
def test_values_that_no_instrument_gives_make_a_bad_row(people, value, level, problem):
    signal = np.random.default_rng(0).standard_normal(200)
    bad = np.where(np.arange(200) == 7, value, signal)
    path = people([(1, 80, 0, signal), (2, level, 0, bad)])
    with pytest.raises(DataError, match="1 of 2 responses cannot be used") as error:
        read(path)
    assert error.value.where == f"people.csv:3: {problem}"
    assert len(read(path, "skip")) == 1


def test_no_usable_response_is_an_error(people):
    with pytest.raises(DataError, match="no usable response"):
        read(people([]))


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


@pytest.mark.slow
def test_memory_does_not_grow_with_a_table(people):
    def anonymous_bytes():
        with open("/proc/self/status") as status:
            (line,) = [line for line in status if line.startswith("RssAnon")]
        return int(line.split()[1]) * 1024

    if sys.platform != "linux":
        pytest.skip("anonymous memory is read from Linux only")
    path = people([])
    rng = np.random.default_rng(0)
    blocks = [",".join(f"{x:.4f}" for x in rng.standard_normal(199)) for _ in range(50)]
    with path.open("a") as file:
        for number in range(70_000):
            file.write(f"\n{number % 900},80,{number % 5},{number}e-5,{blocks[number % 50]}")
    before = anonymous_bytes()
    found = read(path)
    assert len(found) == 70_000 and found.signal.nbytes > 55e6
    # Some 200 bytes a row for labels and duplicate detection; its signal is 800.
    assert anonymous_bytes() - before < 45e6
