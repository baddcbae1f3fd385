import numpy as np
import pytest

from gearshift.models.base import DataError
from gearshift.models.event_seg.readers.prophesee_format import (
    ENCODING_BY_NAME,
    raw_pieces,
    read_header,
)
from tests.models.event_seg.writers import WORDS, random_events


def in_pieces(name, words, length):
    """Events as a list of (t, x, y, p)."""
    encoding, found = ENCODING_BY_NAME[name], []
    words, state = words.view(encoding.word).ravel(), encoding.begin
    for at in range(0, len(words), length):
        events, state = encoding.decode(words[at : at + length], state)
        assert events.t.dtype == np.int64
        columns = (events.t, events.x, events.y, 2 * events.p.astype(int) - 1)
        found += zip(*(column.tolist() for column in columns), strict=True)
    return found


def evt3_by_hand(words):
    """Decode word by word."""
    found, loops, high, low, y, x, sign = [], 0, None, 0, 0, 0, 0
    for word in words.tolist():
        kind, load = word >> 12, word & 0xFFF
        if kind == 0x8:
            loops += high is not None and load < high - 2048
            high, low = load, low if load == high else 0
        elif kind == 0x6:
            low = load
        elif kind == 0x0:
            y = load & 0x7FF
        elif kind == 0x3:
            x, sign = load & 0x7FF, load >> 11
        elif kind == 0x2 and high is not None:
            t = loops << 24 | high << 12 | low
            found.append((t, load & 0x7FF, y, 1 if load >> 11 else -1))
        elif kind in (0x4, 0x5):
            for bit in range(12 if kind == 0x4 else 8):
                if load >> bit & 1 and high is not None:
                    t = loops << 24 | high << 12 | low
                    found.append((t, x + bit, y, 1 if sign else -1))
            x += 12 if kind == 0x4 else 8
    return found


@pytest.mark.parametrize("length", [10**6, 7])
@pytest.mark.parametrize(("name", "last"), [("EVT2", 5 << 34), ("EVT3", 5 << 24), ("DAT", 9 << 32)])
def test_written_events_are_read_also_after_a_clock_wraps(name, last, length):
    events = random_events(1500, last)
    # Even times: no gap exceeds half the range of a clock.
    events.t[:] = np.linspace(0, last, len(events)).astype(np.int64)
    events.t[700:710] = events.t[700]
    written = list(zip(*(v.tolist() for v in vars(events).values()), strict=True))
    assert in_pieces(name, WORDS[name](events), length) == written


GEN1 = b"% Data file containing Event2D events.\n% Version 2\n% Date 2019-1-1 9:00:00\n% Height 48\n% Width 64\n"
N_CARS = (
    b"% Data file containing N9Chronocam7Event2dE events.\n% Version 2\n% Date 2017-7-11 12:00:00\n"
)


@pytest.mark.parametrize("kind", [b"\x00\x08", b"\x0c\x08"])
@pytest.mark.parametrize(
    ("head", "sensor"), [(GEN1, (48, 64)), (N_CARS, None), (b"% Version 2\n", None)]
)
def test_public_dat_files_are_read_whatever_their_words(tmp_path, head, sensor, kind):
    events, path = random_events(300, 90_000), tmp_path / "a_td.dat"
    path.write_bytes(head + kind + WORDS["DAT"](events).tobytes())
    header = read_header(path)
    assert header.sensor == sensor
    (piece,) = raw_pieces(path, header)
    for key in "txy":
        np.testing.assert_array_equal(getattr(piece, key), getattr(events, key))
    np.testing.assert_array_equal(piece.p == 1, events.p == 1)


@pytest.mark.parametrize(
    "head",
    [
        GEN1 + b"\x0e\x08",  # triggers
        GEN1 + b"\x0c\x10",
        GEN1.replace(b"Version 2", b"Version 1") + b"\x00\x08",
    ],
)
def test_dat_of_another_type_size_or_version_is_refused(tmp_path, head):
    path = tmp_path / "a_td.dat"
    path.write_bytes(head + bytes(80))
    with pytest.raises(DataError) as refused:
        read_header(path)
    assert refused.value.where.startswith(f"{path}, byte ")


@pytest.mark.parametrize("length", [10**6, 64, 5])
def test_any_stream_of_evt3_words_is_decoded(length):
    rng = np.random.default_rng(3)
    kinds = rng.choice([0x0, 0x2, 0x3, 0x4, 0x4, 0x5, 0x6, 0x7, 0xA, 0xE, 0xF], 4000)
    words = (kinds << 12 | rng.integers(0, 4096, 4000)).astype("<u2")
    highs = np.sort(rng.choice(np.arange(200, 4000), 60, replace=False))
    # A clock that wraps several times, with small steps back.
    counts = np.cumsum(rng.integers(-1, 400, 60)).clip(0) % 4096
    words[highs] = (0x8 << 12 | counts).astype("<u2")
    expected = evt3_by_hand(words)
    assert len(expected) > 5000 and expected[-1][0] > 1 << 24
    assert in_pieces("EVT3", words, length) == expected


@pytest.mark.parametrize("length", [6, 5, 1])
def test_a_repeated_time_high_keeps_the_low_bits(length):
    words = np.array([0x8005, 0x6064, 0x0007, 0x2003, 0x8005, 0x2004], "<u2")
    assert in_pieces("EVT3", words, length) == [(20_580, 3, 7, -1), (20_580, 4, 7, -1)]


def test_events_before_the_first_time_are_dropped():
    for name, high in (("EVT2", 0x8 << 28), ("EVT3", 0x8000)):
        words = WORDS[name](random_events(50, 40))
        early = words[words >> (28 if name == "EVT2" else 12) <= 2][:10]
        both = np.concatenate((early, words))
        assert words[0] == high
        assert in_pieces(name, both, 10**6) == in_pieces(name, words, 10**6)
