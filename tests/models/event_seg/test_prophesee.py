import pickle
import struct

import h5py
import numpy as np
import pytest

from models.base import DataError
from models.event_seg.readers import prophesee
from models.event_seg.readers.prophesee import RawRecording, read_events
from tests.models.event_seg.writers import HEADERS, random_events, write_masks, write_raw


def opened(path, window_ms=7, **given):
    """Without masks, unless `window_ms` is None."""
    return RawRecording(path, path.name, window_ms, has_labels=window_ms is None, **given)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))


def error_text(path, **given):
    with pytest.raises(DataError) as error:
        opened(path, **given)
    return str(error.value).replace(str(path.parent) + "/", "")


@pytest.mark.parametrize("encoding", HEADERS)
def test_windows_hold_each_event_once_however_the_file_is_cut(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(prophesee, "PIECE", 100)
    events = random_events(3000, 400_000)
    name = "a.dat" if encoding == "DAT" else "a.raw"
    recording = opened(write_raw(tmp_path / name, events, encoding))
    found = [recording.events(i) for i in range(len(recording.windows))]
    for (start, stop), part in zip(recording.windows, found, strict=True):
        assert stop - start == 7000 and (part.t >= start).all() and (part.t < stop).all()
    last = recording.windows[-1, 1]
    for key in "txyp":
        joined = np.concatenate([getattr(part, key) for part in found])
        assert (joined == getattr(events, key)[events.t < last]).all()
    assert recording.sensor == (48, 64) and recording.sensor_source == "header"
    assert recording.index.events == 3000 and recording.index.on == (events.p > 0).sum()


def test_only_the_pieces_of_a_window_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(prophesee, "PIECE", 100)
    recording = opened(write_raw(tmp_path / "a.raw", random_events(3000, 400_000)), 4)
    read = []
    piece = prophesee.read_piece
    monkeypatch.setattr(prophesee, "read_piece", lambda *a: read.append(a[2]) or piece(*a))
    recording.events(50)
    assert 0 < len(read) <= 3


def test_a_second_opening_reads_the_index_and_not_the_file(tmp_path, monkeypatch):
    path = write_raw(tmp_path / "a.raw", random_events(300, 40_000))
    first = opened(path).index
    monkeypatch.setattr(prophesee, "_scan", None)
    assert (opened(path).index.states == first.states).all()


def test_masks_end_windows_and_are_their_labels(tmp_path):
    path = write_raw(tmp_path / "a.raw", random_events(900, 90_000))
    with h5py.File(write_masks(path, [20_000, 50_000, 60_000])) as file:
        masks = file["masks"][:]
    recording = opened(path, None)
    assert recording.windows.tolist() == [[20_000, 50_000], [50_000, 60_000]]
    assert (recording.label(1, 1) == masks[2]).all()
    assert recording.labels == "masks of a_masks.h5"
    copy = pickle.loads(pickle.dumps(recording))
    assert (copy.label(0, 1) == recording.label(0, 1)).all()
    assert len(copy.events(0)) == len(recording.events(0))
    recording = RawRecording(path, "a", 5)
    assert recording.windows.tolist()[0] == [15_000, 20_000] and len(recording.windows) == 3
    assert (recording.label(0, 1) == masks[0]).all()


def test_the_sensor_comes_from_settings_header_masks_or_events(tmp_path):
    path = tmp_path / "a.raw"
    words = write_raw(path, random_events(900, 90_000)).read_bytes()[len(HEADERS["EVT2"]) :]
    assert opened(path, sensor=[50, 70]).sensor == (50, 70)
    path.write_bytes(b"% evt 2.0\n" + words)
    assert (opened(path).sensor, opened(path).sensor_source) == ((48, 64), "events")
    write_masks(path, [20_000, 50_000], sensor=(60, 80))
    assert (opened(path, None).sensor, opened(path, None).sensor_source) == ((60, 80), "masks")


def test_a_truncated_an_empty_and_an_unsorted_file_are_errors(tmp_path):
    path = write_raw(tmp_path / "a.raw", random_events(900, 90_000))
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert error_text(path) == (
        "'a.raw' is truncated: its last word has 1 of 4 bytes\n"
        f"  where         a.raw, byte {len(whole) - 4}\n"
        "  allowed       a multiple of 4 bytes after the header\n"
        "  fix           copy it again, or cut its rest:  truncate -s -1 a.raw"
    )
    path.write_bytes(HEADERS["EVT2"])
    assert error_text(path) == (
        "'a.raw' has no events\n  where         a.raw\n  allowed       events of brightness changes"
    )
    events = random_events(4, 400)
    events.t[:] = 100, 400, 300, 500
    assert error_text(write_raw(path, events)) == (
        "timestamps are not sorted: 300 follows 400\n"
        f"  where         a.raw, from byte {len(HEADERS['EVT2'])}\n"
        "  allowed       numbers, in ascending order"
    )


def test_events_outside_the_sensor_are_an_error(tmp_path):
    path = write_raw(tmp_path / "a.raw", random_events(900, 90_000))
    assert error_text(path, sensor=[48, 60]) == (
        "events extend to 48×64, the sensor is 48×60 (data.sensor)\n"
        "  where         a.raw\n"
        "  allowed       events within the sensor\n"
        "  fix           --set 'data.sensor=[48,64]'"
    )


NINE = [(10 * i, i, i, i % 2) for i in range(9)]
HEADER = (
    "% Data file containing CD events\n% Date 2020-09-14 14:18:29\n% Version 2\n% Width 640\n% Height 480\n"
)


def write_dat(path, events, header=HEADER, kind=12, size=8):
    """A DAT file of (t, x, y, polarity 0 or 1)."""
    words = (struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in events)
    path.write_bytes(header.encode() + struct.pack("<BB", kind, size) + b"".join(words))
    return path


def error_of(path):
    with pytest.raises(DataError) as error:
        opened(path)
    return error.value.message, error.value.where.removeprefix(f"{path}, ")


def test_all_bits_of_an_address_are_read(tmp_path):
    edge = 2**14 - 1
    events = [(0, 0, 0, 0), (7, edge, 0, 0), (9, 0, edge, 1)]
    path = write_dat(tmp_path / "a.dat", events, "% Version 2\n", kind=0)
    recording = opened(path)
    found = read_events(path, recording.header, recording.index, 0, 10)
    expected = [(t, x, y, 2 * p - 1) for t, x, y, p in events]
    assert list(zip(*vars(found).values(), strict=True)) == expected
    assert recording.sensor == (2**14, 2**14) and recording.sensor_source == "events"


@pytest.mark.parametrize(("piece", "number"), [(4, 3), (4, 4), (prophesee.PIECE, 6)])
def test_wrong_polarity_and_order_are_errors_with_a_byte(tmp_path, monkeypatch, piece, number):
    monkeypatch.setattr(prophesee, "PIECE", piece)
    events = list(NINE)
    at = len(HEADER) + 2 + 8 * number
    t, x, y, _ = events[number]
    events[number] = t, x, y, 5
    path = write_dat(tmp_path / "a.dat", events)
    assert error_of(path) == ("'a.dat' has an event of polarity 5", f"byte {at}")
    events[number] = t - 11, x, y, 1
    path = write_dat(tmp_path / "b.dat", events)
    message = f"timestamps are not sorted: {t - 11} follows {t - 10}"
    assert error_of(path) == (message, f"from byte {at}")
