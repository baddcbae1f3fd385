"""Writers of recordings in their file formats."""

import h5py
import numpy as np

from gearshift.models.event_seg.readers.recording import Events


def random_events(count, last, sensor=(48, 64), seed=0):
    """Events of a camera in order of time, whole microseconds from 0 to `last`."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, last + 1, count))
    t[-1] = last
    y, x = (rng.integers(0, n, count).astype(np.int32) for n in sensor)
    return Events(t, x, y, rng.choice(np.array([-1, 1], np.int8), count))


def evt2_words(events):
    """With a time-high before the first event and wherever it changes, and a trigger now and
    then."""
    words, high = [], None
    for t, x, y, p in zip(*(v.tolist() for v in vars(events).values()), strict=True):
        if t >> 6 != high:
            high = t >> 6
            words += [0x8 << 28 | high & 0x0FFFFFFF, 0xA << 28 | 12345]
        words.append((p > 0) << 28 | (t & 63) << 22 | x << 11 | y)
    return np.array(words, "<u4")


def evt3_words(events):
    """Single events; each word follows the words that set its state."""
    words, high, low, row = [], None, None, None
    for t, x, y, p in zip(*(v.tolist() for v in vars(events).values()), strict=True):
        if t >> 12 != high:
            high, low = t >> 12, None
            words.append(0x8000 | high & 0xFFF)
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(0x6000 | low)
        if y != row:
            row = y
            words.append(y)
        words.append(0x2000 | (p > 0) << 11 | x)
    return np.array(words, "<u2")


def evt21_words(events):
    """Words of 64 bits, each with the event alone; a time-high wherever it changes."""
    words, high = [], None
    for t, x, y, p in zip(*(v.tolist() for v in vars(events).values()), strict=True):
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 60 | (high & 0x0FFFFFFF) << 32)
        base = x & ~31
        words.append((p > 0) << 60 | (t & 63) << 54 | base << 43 | y << 32 | 1 << (x - base))
    return np.array(words, "<u8")


def dat_words(events):
    """Times are cut to the available 32 bits."""
    position = events.x | events.y << 14 | (events.p > 0).astype(np.int32) << 28
    return np.stack((events.t & 0xFFFFFFFF, position), axis=1).astype("<u4")


HEADERS = {
    "EVT2": b"% evt 2.0\n% geometry 64x48\n",
    "EVT21": b"% evt 2.1\n% format EVT21;height=48;width=64\n% end\n",
    "EVT3": b"% camera\n% format EVT3;height=48;width=64\n% end\n",
    "DAT": b"% Data file containing CD events.\n% Version 2\n% Height 48\n% Width 64\n\x00\x08",
}
WORDS = {"EVT2": evt2_words, "EVT21": evt21_words, "EVT3": evt3_words, "DAT": dat_words}


def write_raw(path, events, encoding="EVT2"):
    """A Prophesee file."""
    path.write_bytes(HEADERS[encoding] + WORDS[encoding](events).tobytes())
    return path


def write_dsec(path, events, offset=0, **changed):
    """A DSEC file; `changed` replaces arrays by name, None leaves out."""
    arrays = {
        "events/t": (events.t - offset).astype(np.uint32),
        "events/x": events.x.astype(np.uint16),
        "events/y": events.y.astype(np.uint16),
        "events/p": (events.p > 0).astype(np.uint8),
        "ms_to_idx": np.searchsorted(events.t - offset, np.arange(0, 1000, 1) * 1000),
        "t_offset": np.int64(offset),
    } | {name.replace("__", "/"): array for name, array in changed.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if array is not None:
                file.create_dataset(name, data=array, **({"chunks": True} if "/" in name else {}))
    return path


def write_masks(recording, times, sensor=(48, 64), seed=0):
    """Masks beside a recording, each with a random rectangle."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((len(times), *sensor), np.uint8)
    for mask in masks:
        top, left = rng.integers(0, sensor[0] // 2), rng.integers(0, sensor[1] // 2)
        mask[top : top + sensor[0] // 3, left : left + sensor[1] // 3] = 1
    path = recording.with_name(recording.stem + "_masks.h5")
    with h5py.File(path, "w") as file:
        file["masks"], file["t"] = masks, np.asarray(times, np.int64)
    return path


def write_mvsec(path, frames=12, per_frame=200, begin=1.5e9, **changed):
    """An MVSEC file of a square that moves; `changed` replaces arrays by name, None leaves out."""
    rng = np.random.default_rng(0)
    times = begin + np.arange(frames) / 45
    t = np.sort(rng.uniform(times[0] - 0.01, times[-1] + 0.01, frames * per_frame))
    y, x = rng.integers(0, 52, len(t)), rng.integers(0, 69, len(t))
    p = rng.choice([-1.0, 1.0], len(t))
    images = np.full((frames, 52, 69), 40, np.uint8)
    for i, image in enumerate(images):
        image[10:30, 5 + 3 * i : 25 + 3 * i] = 200
    arrays = {
        "events": np.stack((x, y, t, p), axis=1),
        "image_raw": images,
        "image_raw_ts": times,
        "image_raw_event_inds": np.searchsorted(t, times),
    } | changed
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if array is not None:
                file[f"davis/left/{name}"] = array
    return path
