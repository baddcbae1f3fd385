"""Events of each encoding are those of the sensor; what is no recording is one error."""

import numpy as np
import pytest

from models.base import DataError
from models.event_seg.formats import BY_ENCODING, recognize
from models.event_seg.readers import prophesee
from models.event_seg.readers.prophesee import RawRecording
from models.event_seg.readers.recording import Events
from tests.models.event_seg.writers import random_events, write_dsec, write_masks


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))


def opened(path, window_ms=7):
    return RawRecording(path, path.name, window_ms, has_labels=window_ms is None)


def all_events(recording):
    events = prophesee.read_events(recording.path, recording.header, recording.index, 0, 2**62)
    return rows(events)


def rows(events):
    return list(zip(*(v.tolist() for v in (events.t, events.x, events.y, events.p)), strict=True))


def error_text(path):
    with pytest.raises(DataError) as error:
        opened(path)
    return str(error.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize("order", ["little", "legacy"])
def test_a_vector_of_32_pixels_has_an_event_for_each_bit(tmp_path, order):
    header = f"% evt 2.1\n% format EVT21;height=320;width=320;endianness={order}\n% end\n"
    words = np.array([0x8 << 60 | 5 << 32, 1 << 60 | 3 << 54 | 64 << 43 | 7 << 32 | 0b1011], "<u8")
    halves = words.view("<u4").reshape(-1, 2)
    content = halves if order == "little" else halves[:, ::-1]
    (tmp_path / "a.raw").write_bytes(header.encode() + content.tobytes())
    recording = opened(tmp_path / "a.raw")
    assert all_events(recording) == [(5 * 64 + 3, 64 + bit, 7, 1) for bit in (0, 1, 3)]
    assert recording.format == "Prophesee RAW EVT 2.1" and recording.sensor == (320, 320)


HEADERS = (
    "% evt 4.0",
    "% evt 3.0\n% format EVT2;height=4;width=4",
    "% evt 2.1\n% endianness big",
    "% evt 3.0\n% geometry 0x48",
)


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_names_no_known_encoding_is_one_error(tmp_path, header):
    path = tmp_path / "a.raw"
    path.write_bytes(f"{header}\n".encode() + b"\x00" * 64)
    assert recognize(path) is not None
    assert "a.raw, byte 0" in error_text(path)


def test_events_of_dsec_are_read_at_the_time_of_the_rig(tmp_path, monkeypatch):
    monkeypatch.setattr(prophesee, "PIECE", 100)
    events = random_events(2000, 200_000)
    moved = Events(events.t + 49_599_300_523, events.x, events.y, events.p)
    path = write_dsec(tmp_path / "events.h5", moved, offset=49_599_300_523)
    recording = opened(path)
    assert recognize(path) == recording.format == BY_ENCODING["DSEC"]
    assert all_events(recording) == rows(moved) and recording.count == 2000
    write_masks(path, moved.t[[500, 900, 1500]])
    assert opened(path, None).labels == "masks of events_masks.h5"


@pytest.mark.parametrize(
    "change",
    [
        {"events__x": np.zeros(5, np.uint16)},
        {"events__p": np.full(99, 7, np.uint8)},
        {"events__y": np.full(99, 2**30, np.int64)},
        {"events__t": None},
        {"events__t": np.arange(99)[::-1].astype(np.uint32)},
        {"events__t": np.arange(99) << 50},  # centuries, no gigabytes
    ],
)
def test_a_file_without_the_layout_of_dsec_is_one_error(tmp_path, change):
    path = write_dsec(tmp_path / "events.h5", random_events(99, 9999), **change)
    assert recognize(path) == BY_ENCODING["DSEC"] and "events.h5" in error_text(path)
