"""DAT files, written and read a second time with `struct`."""

import struct

import pytest

from launcher.__main__ import main
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


@pytest.mark.parametrize(
    ("header", "line", "at"),
    [
        ("% Version 1\n% Width 640\n", "% Version 1", 0),
        ("% Width 640\n% Version 3\n", "% Version 3", 12),
        ("% Data file containing EM events\n", "% Data file containing EM events", 0),
    ],
)
def test_other_versions_and_other_events_are_errors(tmp_path, header, line, at):
    path = write_dat(tmp_path / "a.dat", rows(9), header)
    assert error_of(path) == (f"'a.dat' has an unknown header line: {line}", f"byte {at}")


def test_other_types_and_sizes_of_events_are_errors_with_their_byte(tmp_path):
    path, end = tmp_path / "a.dat", len(HEADER)
    write_dat(path, rows(9), kind=14)
    assert error_of(path) == ("'a.dat' has events of type 14", f"byte {end}")
    with pytest.raises(DataError) as error:
        opened(path)
    assert error.value.allowed == "event type 0 (2D) or 12 (CD), event size 8"
    write_dat(path, rows(9), size=16)
    assert error_of(path) == ("'a.dat' has events of 16 bytes", f"byte {end + 1}")


def test_a_file_that_ends_early_is_an_error_with_its_byte(tmp_path):
    path, end = tmp_path / "a.dat", len(HEADER)
    content = write_dat(path, rows(9)).read_bytes()
    for length, message, at in (
        (0, "has no Prophesee header", 0),
        (end - 1, "has a header line without an end", HEADER.index("% Height")),
        (end, "ends before the type and size of its events", end),
        (end + 1, "ends before the type and size of its events", end + 1),
        (end + 2 + 8 * 3 + 5, "is truncated: its last word has 5 of 8 bytes", end + 2 + 8 * 3),
    ):
        path.write_bytes(content[:length])
        assert error_of(path) == (f"'a.dat' {message}", f"byte {at}")
    path.write_bytes(content[: end + 2])
    assert error_of(path)[0] == "'a.dat' has no events"


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


def test_data_check_recognizes_and_describes_a_dat_file(tmp_path, capsys):
    path = write_dat(tmp_path / "night.dat", rows())
    assert main(["data", "check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert f"{path}: Prophesee DAT\n" in shown and "read by            event_seg" in shown
    assert "5,000 in 1 recordings" in shown and "480×640 (from header)" in shown
    write_dat(path, rows(), kind=14)
    assert main(["data", "check", str(path)]) == 2
    shown = capsys.readouterr().err
    assert "'night.dat' has events of type 14" in shown and f"byte {len(HEADER)}" in shown
