"""Events in vectors of 32 pixels are those of the sensor."""

import numpy as np
import pytest

from gearshift.models.event_seg.formats import recognize
from gearshift.models.event_seg.readers import prophesee_format
from gearshift.models.event_seg.readers.files import open_recording


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))


def opened(path):
    return open_recording(path, path.name, recognize(path), 7, trained=(1, 1))


def rows(events):
    return list(zip(*(v.tolist() for v in (events.t, events.x, events.y, events.p)), strict=True))


def vectors(count=3000, begin=2**34 - 40_000):
    """EVT 2.1 words of 64 bits with any masks, triggers and unknown types, over a wrap."""
    rng, words, high = np.random.default_rng(0), [], None
    for t in np.sort(rng.integers(begin, begin + 90_000, count)).tolist():
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 60 | (high & 0x0FFFFFFF) << 32 | int(rng.integers(2**32)))
        kind = int(rng.choice([0x0, 0x1, 0x0, 0x1, 0xA, 0xE]))
        x, y, mask = int(rng.integers(9)) * 32, int(rng.integers(320)), int(rng.integers(2**32))
        words.append(kind << 60 | (t & 63) << 54 | x << 43 | y << 32 | mask)
    return np.array(words, "<u8")


def decoded(words):
    """Word by word, as the specification says."""
    found, high, wraps = [], None, 0
    for word in words.tolist():
        kind = word >> 60
        if kind == 0x8:
            count = word >> 32 & 0x0FFFFFFF
            wraps += high is not None and count < high
            high = count
        elif kind <= 0x1 and high is not None:
            t = wraps << 34 | high << 6 | word >> 54 & 63
            x, y = word >> 43 & 0x7FF, word >> 32 & 0x7FF
            found += [(t, x + b, y, 2 * kind - 1) for b in range(32) if word >> b & 1]
    return found


@pytest.mark.parametrize(("piece", "says"), [(10**6, ""), (100, ";endianness=little"), (7, "")])
def test_vectors_of_32_pixels(tmp_path, monkeypatch, piece, says):
    monkeypatch.setattr(prophesee_format, "PIECE", piece)
    header = f"% evt 2.1\n% format EVT21;height=320;width=320{says}\n% end\n"
    words = vectors()
    (tmp_path / "a.raw").write_bytes(header.encode() + words.tobytes())
    recording = opened(tmp_path / "a.raw")
    expected = decoded(words)
    assert len(expected) > 25_000 and expected[-1][0] > 2**34
    assert rows(recording.all_events) == expected
    assert recording.format == "Prophesee RAW EVT 2.1" and recording.sensor == (320, 320)
