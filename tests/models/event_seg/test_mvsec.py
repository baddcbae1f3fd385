import os

import h5py
import numpy as np
import pytest

from models.base import DataError
from models.event_seg.readers import mvsec
from models.event_seg.readers.mvsec import MvsecRecording
from models.event_seg.readers.recording import edges
from tests.models.event_seg.writers import write_mvsec


def opened(path):
    return MvsecRecording(path, path.name)


def all_events(path):
    with h5py.File(path) as file:
        return file["davis/left/events"][:]


@pytest.mark.parametrize(("off", "margin"), [(0, 1), (5, 1024), (-400, 1), (10**6, 1024)])
def test_windows_hold_each_event_once_if_indices_are_off(tmp_path, monkeypatch, off, margin):
    monkeypatch.setattr(mvsec, "MARGIN", margin)
    path = write_mvsec(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        file["davis/left/image_raw_event_inds"][...] += off
    recording, events = opened(path), all_events(path)
    # An event at the time of a frame belongs to the window that begins there.
    assert len(recording.windows) == 11 and recording.windows.dtype == np.float64
    for index, (start, stop) in enumerate(recording.windows):
        found, inside = recording.events(index), (events[:, 2] >= start) & (events[:, 2] < stop)
        assert (found.t == events[inside, 2]).all() and found.t.dtype == np.float64
        assert (found.x == events[inside, 0]).all() and (found.p == events[inside, 3]).all()


def test_a_window_reads_its_part_of_the_events(tmp_path, monkeypatch):
    monkeypatch.setattr(mvsec, "MARGIN", 10)
    recording = opened(write_mvsec(tmp_path / "a.hdf5", frames=100))
    read, whole = [], recording._hdf5.read
    monkeypatch.setattr(recording._hdf5, "read", lambda *a: read.append(whole(*a)) or read[-1])
    recording.events(50)
    assert max(map(len, read)) < 600 < len(all_events(tmp_path / "a.hdf5")) / 10


@pytest.mark.parametrize("off", [-1.0, 0.0])
def test_both_encodings_of_polarity_give_plus_and_minus_one(tmp_path, off):
    path = write_mvsec(tmp_path / "a.hdf5")
    events = all_events(path)
    brighter = events[:, 3] > 0
    with h5py.File(path, "r+") as file:
        file["davis/left/events"][:, 3] = np.where(brighter, 1.0, off)
    recording = opened(path)
    inside = (events[:, 2] >= recording.windows[0, 0]) & (events[:, 2] < recording.windows[0, 1])
    found = recording.events(0).p
    assert found.dtype == np.int8
    assert (found == np.where(brighter, 1, -1)[inside]).all()


def test_the_label_is_the_edges_of_the_frame_that_ends_the_window(tmp_path):
    path = write_mvsec(tmp_path / "a.hdf5")
    with h5py.File(path) as file:
        frames = file["davis/left/image_raw"][:]
    recording = opened(path)
    assert (recording.label(3, 1) == edges(frames[4], 1)).all()
    assert recording.label(3, 2).shape == (26, 34)


def test_a_forked_process_opens_its_own_handle(tmp_path, monkeypatch):
    recording = opened(write_mvsec(tmp_path / "a.hdf5"))
    before = recording._hdf5.file
    assert recording._hdf5.file is before
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert recording._hdf5.file is not before


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        (0, np.nan, "an event is nan,"),
        (0, 1e30, r"an event is 1e\+30,"),
        (1, -1, "an event is"),
        (2, np.nan, "timestamps are not finite"),
        (2, 3.0, "timestamps are not sorted"),
        (3, 0.5, "an event is"),
    ],
)
def test_an_invalid_event_is_an_error_in_its_window(tmp_path, monkeypatch, column, value, text):
    monkeypatch.setattr(mvsec, "_SEEN", 100)  # events checked on opening
    path = write_mvsec(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        middle = int(file["davis/left/image_raw_event_inds"][6]) - 20
        file["davis/left/events"][middle, column] = value
    recording = opened(path)
    with pytest.raises(DataError, match=text):
        recording.events(5)


def test_a_truncated_file_is_an_error(tmp_path):
    path = write_mvsec(tmp_path / "a.hdf5")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"'a\.hdf5' cannot be opened as HDF5"):
        opened(path)
