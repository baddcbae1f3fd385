import pickle
import struct
from functools import partial

import h5py
import numpy as np
import pytest

from gearshift.models.event_seg.formats import recognize
from gearshift.models.event_seg.readers import hdf5, prophesee_format, recording
from gearshift.models.event_seg.readers.files import open_recording
from gearshift.models.event_seg.readers.recording import edges
from tests.models.errors import error_of
from tests.models.event_seg.writers import (
    HEADERS,
    random_events,
    write_dsec,
    write_masks,
    write_mvsec,
    write_raw,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))


def opened(path, window_ms=7, trained=(48, 64), **given):
    return open_recording(path, path.name, recognize(path), window_ms, trained=trained, **given)


def small_pieces(monkeypatch, length=100):
    for module in (hdf5, prophesee_format):
        monkeypatch.setattr(module, "PIECE", length)


def write(path, events, encoding):
    return (
        write_dsec(path, events, 1000) if encoding == "DSEC" else write_raw(path, events, encoding)
    )


@pytest.mark.parametrize("encoding", [*HEADERS, "DSEC"])
def test_windows_hold_each_event_once_however_the_file_is_cut(tmp_path, monkeypatch, encoding):
    small_pieces(monkeypatch)
    events = random_events(3000, 400_000)
    events.t[:] += 1000
    found = opened(write(tmp_path / ("a.dat" if encoding == "DAT" else "a.raw"), events, encoding))
    parts = [found.events(i) for i in range(len(found.windows))]
    for (start, stop), part in zip(found.windows, parts, strict=True):
        assert stop - start == 7000 and (part.t >= start).all() and (part.t < stop).all()
    last = found.windows[-1, 1]
    for key in "txyp":
        joined = np.concatenate([getattr(part, key) for part in parts])
        assert (joined == getattr(events, key)[events.t < last]).all()
    assert found.sensor == (48, 64) and len(found.all_events) == 3000
    copy = pickle.loads(pickle.dumps(found))
    assert (copy.events(3).t == found.events(3).t).all()


def test_a_second_opening_reads_the_cache_and_not_the_file(tmp_path, monkeypatch):
    path = write_raw(tmp_path / "a.raw", random_events(300, 40_000))
    opened(path)
    monkeypatch.setattr(prophesee_format.np, "fromfile", None)
    assert len(opened(path).all_events) == 300


def test_masks_end_windows_and_are_their_labels(tmp_path):
    path = write_raw(tmp_path / "a.raw", random_events(900, 90_000))
    with h5py.File(write_masks(path, [20_000, 50_000, 60_000])) as file:
        masks = file["masks"][:]
    found = opened(path, None, None)
    assert found.windows.tolist() == [[20_000, 50_000], [50_000, 60_000]]
    assert (found.label(1, 1) == masks[2]).all() and found.labels == "masks of a_masks.h5"
    found = opened(path, 5, None)
    assert found.windows.tolist()[0] == [15_000, 20_000] and len(found.windows) == 3
    assert (found.label(0, 1) == masks[0]).all()


def test_the_sensor_comes_from_settings_header_masks_training_or_events(tmp_path):
    path = tmp_path / "a.raw"
    words = write_raw(path, random_events(900, 90_000)).read_bytes()[len(HEADERS["EVT2"]) :]
    assert (
        opened(path, sensor=[50, 70]).sensor == (50, 70) and opened(path).sensor_source == "header"
    )
    path.write_bytes(b"% evt 2.0\n" + words)
    assert opened(path, trained=(260, 346)).sensor == (260, 346)
    assert opened(path, trained=(9, 9)).sensor == (48, 64)
    write_masks(path, [20_000, 50_000], sensor=(60, 80))
    found = opened(path, None, None)
    assert (found.sensor, found.sensor_source) == ((60, 80), "masks")
    assert error_of(opened, path, sensor=[48, 60]).fix == "--set 'data.sensor=[48,64]'"


def write_dat(path, events, kind=12, size=8, version=2):
    """A DAT file of (t, x, y, polarity 0 or 1)."""
    words = (struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in events)
    head = f"% Data file containing CD events\n% Version {version}\n".encode()
    path.write_bytes(head + struct.pack("<BB", kind, size) + b"".join(words))
    return path


def test_all_bits_of_an_address_are_read(tmp_path):
    edge = 2**14 - 1
    events = [(0, 0, 0, 0), (7, edge, 0, 0), (9, 0, edge, 1)]
    whole = opened(write_dat(tmp_path / "a.dat", events, kind=0), 0.001).all_events
    expected = [(t, x, y, 2 * p - 1) for t, x, y, p in events]
    assert list(zip(*vars(whole).values(), strict=True)) == expected


def unsorted(path):
    events = random_events(4, 400)
    events.t[:] = 100, 400, 300, 500
    return write_raw(path, events)


def truncated(path):
    write_raw(path, random_events(900, 90_000))
    path.write_bytes(path.read_bytes()[:-3])


def changed_event(path, column, value):
    """An MVSEC file with another number in one event."""
    write_mvsec(path)
    with h5py.File(path, "r+") as file:
        file["davis/left/events"][900, column] = value


EVENT = (0, 0, 0, 0)
DAMAGED = {
    "truncated.raw": (truncated, "byte"),
    "empty.raw": (lambda path: path.write_bytes(HEADERS["EVT2"]), "empty.raw"),
    "unsorted.raw": (unsorted, "after event 0"),
    "polarity.dat": (partial(write_dat, events=[EVENT, (1, 1, 1, 5)]), "after event 0"),
    "kind.dat": (partial(write_dat, events=[EVENT], kind=3), "byte 45"),
    "size.dat": (partial(write_dat, events=[EVENT], size=4), "byte 45"),
    "version.dat": (partial(write_dat, events=[EVENT], version=1), "byte 0"),
    **{
        f"{column}-{value}.hdf5": (
            partial(changed_event, column=column, value=value),
            "after event",
        )
        for column, value in [
            (0, np.nan),
            (0, 1e30),
            (1, -1),
            (2, np.nan),
            (2, 3.0),
            (3, 0.5),
            (3, 0),
        ]
    },
    "cut.hdf5": (lambda path: path.write_bytes(write_mvsec(path).read_bytes()[:-5000]), "cut.hdf5"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_recording_is_an_error_with_its_place(tmp_path, name):
    write, place = DAMAGED[name]
    write(tmp_path / name)
    assert place in error_of(opened, tmp_path / name).where


def test_windows_of_mvsec_end_at_frames_and_their_labels_are_the_edges(tmp_path, monkeypatch):
    small_pieces(monkeypatch)
    path = write_mvsec(tmp_path / "a.hdf5")
    with h5py.File(path) as file:
        events, frames = file["davis/left/events"][:], file["davis/left/image_raw"][:]
    found = opened(path, None, None)
    assert len(found.windows) == 11 and found.windows.dtype == np.float64
    for index, (start, stop) in enumerate(found.windows):
        # An event at the time of a frame belongs to the window that begins there.
        part, inside = found.events(index), (events[:, 2] >= start) & (events[:, 2] < stop)
        assert (part.t == events[inside, 2]).all() and part.t.dtype == np.float64
        assert (part.x == events[inside, 0]).all() and (part.p == events[inside, 3]).all()
    assert (found.label(3, 1) == edges(frames[4], 1)).all() and found.label(3, 2).shape == (26, 34)
    events[:, 3] = events[:, 3] > 0  # the other encoding of polarity
    other = opened(write_mvsec(tmp_path / "b.hdf5", events=events), None, None)
    assert (other.all_events.p == found.all_events.p).all() and other.all_events.p.dtype == np.int8


def test_a_large_recording_is_decoded_in_pieces(tmp_path):
    block = np.empty(1024, "<u4")
    block[1:] = (
        np.sort(np.random.default_rng(0).integers(0, 64, 1023)).astype(np.uint32) << 22 | 1 << 28
    )
    body = np.tile(block, (10_000, 1))
    body[:, 0] = 0x8 << 28 | np.arange(10_000, dtype=np.uint32)
    path = tmp_path / "large.raw"
    path.write_bytes(HEADERS["EVT2"] + body.tobytes())
    header, sizes = prophesee_format.read_header(path), []
    for piece in prophesee_format.raw_pieces(path, header):
        sizes.append(len(piece))
    assert sum(sizes) == 10_230_000 and max(sizes) <= recording.PIECE
