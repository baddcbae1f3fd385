from types import SimpleNamespace

import pytest

from models.base import DataError
from models.common.data_files import BadRecords
from models.event_seg.dataset import recordings
from models.event_seg.formats import FORMATS, recognise
from tests.models.event_seg.writers import random_events, write_masks, write_mvsec, write_raw

TOLD = SimpleNamespace(window_ms=None, sensor=None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "all" / "deep").mkdir(parents=True)
    return tmp_path / "all"


def found(path, faults=None):
    return recordings(path, TOLD, faults or BadRecords("recordings"))


def test_each_format_is_recognised_by_how_it_begins(folder):
    events = random_events(50, 4000)
    assert recognise(write_mvsec(folder / "x.hdf5", frames=2)) == FORMATS[0]
    assert recognise(write_raw(folder / "a.bin", events, "EVT2")) == FORMATS[1]
    assert recognise(write_raw(folder / "b.raw", events, "EVT3")) == FORMATS[2]
    assert recognise(write_raw(folder / "c.dat", events, "DAT")) == FORMATS[3]
    assert recognise(folder) == FORMATS[1]
    (folder / "deep" / "text.raw").write_text("% of people\n")
    assert recognise(folder / "deep") is None


def test_what_accompanies_a_recording_is_none(folder):
    write_mvsec(folder / "outdoor_day1_data.hdf5", frames=3)
    write_mvsec(folder / "outdoor_day1_gt.hdf5", frames=3)
    (folder / "notes.txt").write_text("no recording")
    (recording,), others = found(folder)
    assert recording.name == "outdoor_day1_data.hdf5" and others == 1
    assert recognise(folder / "outdoor_day1_gt.hdf5") is None


def test_a_folder_gives_its_recordings_by_name_at_any_depth(folder):
    for name in ("b.raw", "deep/a.raw"):
        write_raw(folder / name, random_events(50, 4000))
    write_masks(folder / "b.raw", [1000, 2000])
    held, others = found(folder)
    assert [recording.name for recording in held] == ["b.raw", "deep/a.raw"] and others == 0
    assert [bool(recording.labels) for recording in held] == [True, False]


def test_one_that_cannot_be_used_is_counted_among_others_and_told_if_alone(folder):
    write_raw(folder / "good.raw", random_events(50, 4000))
    broken = write_raw(folder / "broken.raw", random_events(50, 4000))
    broken.write_bytes(broken.read_bytes()[:-1])
    faults = BadRecords("recordings")
    assert [recording.name for recording in found(folder, faults)[0]] == ["good.raw"]
    assert faults.finish("skip", 1) == 1
    with pytest.raises(DataError) as error:
        faults.finish("stop", 1)
    assert "1 of 2 recordings cannot be used" in str(error.value)
    assert "'broken.raw' is truncated" in str(error.value)
    with pytest.raises(DataError, match="truncated"):
        found(broken)


def test_cameras_of_different_sizes_are_told(folder):
    write_raw(folder / "a.raw", random_events(50, 4000))
    write_mvsec(folder / "b.hdf5", frames=2)
    with pytest.raises(DataError) as error:
        found(folder)
    assert str(error.value) == (
        "recordings of different sensors: 48×64 (a.raw), 52×69 (b.hdf5)\n"
        f"  where         {folder}\n"
        "  allowed       recordings of one size\n"
        "  fix           one folder a camera, or  --set data.sensor=[HEIGHT,WIDTH]  for RAW files"
    )


def test_a_folder_without_a_recording_is_told_with_what_is_known(folder):
    (folder / "notes.txt").write_text("no recording")
    with pytest.raises(DataError) as error:
        found(folder)
    assert error.value.allowed == "; ".join(FORMATS)
