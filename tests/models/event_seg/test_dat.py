"""DAT files, written and read a second time with `struct`."""

import struct

import pytest

from models.base import DataError
from models.event_seg.readers import prophesee
from models.event_seg.readers.prophesee import RawRecording, read_events
from tests.models.event_seg.writers import random_events

HEADER = (
    "% Data file containing CD events\n"
    "% Date 2020-09-14 14:18:29\n"
    "% Version 2\n"
    "% Width 640\n"
    "% Height 480\n"
)


def write_dat(path, events, header=HEADER, kind=12, size=8):
    """A DAT file of (t, x, y, polarity 0 or 1)."""
    words = (struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in events)
    path.write_bytes(header.encode() + struct.pack("<BB", kind, size) + b"".join(words))
    return path


def read_dat(path):
    """The events of a DAT file as (t, x, y, -1 or 1)."""
    content, at = path.read_bytes(), 0
    while content[at] == ord("%"):
        at = content.index(b"\n", at) + 1
    assert struct.unpack_from("<BB", content, at) in ((0, 8), (12, 8))
    words = struct.iter_unpack("<II", content[at + 2 :])
    return [(t, w % 2**14, w // 2**14 % 2**14, 2 * (w // 2**28) - 1) for t, w in words]


def rows(count=5000, last=600_000, sensor=(480, 640)):
    events = random_events(count, last, sensor)
    columns = (events.t, events.x, events.y, (events.p > 0).astype(int))
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def opened(path):
    return RawRecording(path, path.name)


def error_of(path):
    with pytest.raises(DataError) as error:
        opened(path)
    return error.value.message, error.value.where.removeprefix(f"{path}, ")


@pytest.mark.parametrize(("piece", "kind"), [(prophesee.PIECE, 0), (100, 12), (1, 0)])
def test_count_first_last_and_all_events_match_a_second_reader(tmp_path, monkeypatch, piece, kind):
    monkeypatch.setattr(prophesee, "PIECE", piece)
    path = write_dat(tmp_path / "a.dat", rows(5000 if piece > 1 else 50), kind=kind)
    expected, recording = read_dat(path), opened(path)
    found = read_events(path, recording.header, recording.index, 0, expected[-1][0] + 1)
    events = list(zip(*(getattr(found, key).tolist() for key in "txyp"), strict=True))
    assert recording.count == len(events) == len(expected)
    assert (events[0], events[-1]) == (expected[0], expected[-1])
    assert events == expected
    assert recording.index.on == sum(p == 1 for *_, p in expected)
    assert (recording.format, recording.sensor) == ("Prophesee DAT", (480, 640))
    assert recording.sensor_source == "header"


def test_all_bits_of_an_address_are_read(tmp_path):
    edge = 2**14 - 1
    path = write_dat(
        tmp_path / "a.dat", [(0, 0, 0, 0), (7, edge, 0, 0), (9, 0, edge, 1)], "% Version 2\n"
    )
    recording = opened(path)
    found = read_events(path, recording.header, recording.index, 0, 10)
    assert list(zip(*vars(found).values(), strict=True)) == read_dat(path)
    assert recording.sensor == (2**14, 2**14) and recording.sensor_source == "events"


@pytest.mark.parametrize(("piece", "number"), [(4, 3), (4, 4), (prophesee.PIECE, 6)])
def test_wrong_polarity_and_order_are_errors_with_the_byte_of_the_event(
    tmp_path, monkeypatch, piece, number
):
    monkeypatch.setattr(prophesee, "PIECE", piece)
    events = [(10 * i, i, i, i % 2) for i in range(9)]
    at = len(HEADER) + 2 + 8 * number
    t, x, y, _ = events[number]
    events[number] = t, x, y, 5
    path = write_dat(tmp_path / "a.dat", events)
    assert error_of(path) == ("'a.dat' has an event of polarity 5", f"byte {at}")
    events[number] = t - 11, x, y, 1
    path = write_dat(tmp_path / "b.dat", events)
    message = f"timestamps are not sorted: {t - 11} follows {t - 10}"
    assert error_of(path) == (message, f"from byte {at}")


END = len(HEADER)


@pytest.mark.parametrize(
    ("written", "message", "at"),
    [
        ({"header": "% Version 1\n"}, "has an unknown header line: % Version 1", 0),
        ({"header": "% Width 6\n% Version 3\n"}, "has an unknown header line: % Version 3", 10),
        (
            {"header": "% Data file containing EM events\n"},
            "has an unknown header line: % Data file containing EM events",
            0,
        ),
        ({"kind": 14}, "has events of type 14", END),
        ({"size": 16}, "has events of 16 bytes", END + 1),
        ({"length": 0}, "has no Prophesee header", 0),
        ({"length": END - 1}, "has a header line without an end", HEADER.index("% Height")),
        ({"length": END}, "ends before the type and size of its events", END),
        ({"length": END + 1}, "ends before the type and size of its events", END + 1),
        (
            {"length": END + 2 + 8 * 3 + 5},
            "is truncated: its last word has 5 of 8 bytes",
            END + 2 + 8 * 3,
        ),
    ],
)
def test_another_or_incomplete_file_is_an_error_with_its_byte(tmp_path, written, message, at):
    length = written.pop("length", None)
    path = write_dat(tmp_path / "a.dat", rows(9), **written)
    path.write_bytes(path.read_bytes()[:length])
    assert error_of(path) == (f"'a.dat' {message}", f"byte {at}")
    if "kind" in written:
        with pytest.raises(DataError) as error:
            opened(path)
        assert error.value.allowed == "event type 0 (2D) or 12 (CD), event size 8"


def test_a_file_without_events_is_an_error(tmp_path):
    assert error_of(write_dat(tmp_path / "a.dat", []))[0] == "'a.dat' has no events"
