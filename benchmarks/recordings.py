"""Recordings of a realistic size, in the formats that the families read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

SENSOR = 260, 346
FRAMES_PER_S = 30
LINE = "The {} of the {} is {} in the {}."
WORDS = ("river", "table", "engine", "letter", "window", "garden", "number", "signal", "forest")


def moving_events(count: int, last_us: int) -> tuple[np.ndarray, ...]:
    """Times in whole microseconds, x, y and polarity 0 or 1 of a front that crosses the sensor."""
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, last_us + 1, count))
    front = t * SENSOR[1] * 4 // last_us % SENSOR[1]
    x = (front + rng.integers(0, 12, count)) % SENSOR[1]
    return t, x, rng.integers(0, SENSOR[0], count), rng.integers(0, 2, count)


def write_evt2(path: Path, count: int, last_us: int) -> Path:
    """A Prophesee EVT 2.0 file: a time-high word where bits 33 to 6 of the time change."""
    t, x, y, p = moving_events(count, last_us)
    high = t >> 6
    changes = np.flatnonzero(np.diff(high, prepend=-1))
    words = np.insert(p << 28 | (t & 63) << 22 | x << 11 | y, changes, 0x8 << 28 | high[changes])
    head = f"% evt 2.0\n% geometry {SENSOR[1]}x{SENSOR[0]}\n% end\n"
    path.write_bytes(head.encode() + words.astype("<u4").tobytes())
    _write_masks(path, last_us)
    return path


def write_evt3(path: Path, count: int, last_us: int) -> Path:
    """A Prophesee EVT 3.0 file: time, row and column of every event, four words each."""
    t, x, y, p = moving_events(count, last_us)
    words = np.stack(
        (0x8 << 12 | t >> 12 & 0xFFF, 0x6 << 12 | t & 0xFFF, y, 0x2 << 12 | p << 11 | x), axis=1
    )
    head = f"% format EVT3;height={SENSOR[0]};width={SENSOR[1]}\n% end\n"
    path.write_bytes(head.encode() + words.astype("<u2").tobytes())
    _write_masks(path, last_us)
    return path


def _write_masks(path: Path, last_us: int) -> None:
    """The masks of the left half beside a recording."""
    import h5py

    times = np.arange(0, last_us, 1_000_000 // FRAMES_PER_S)
    mask = np.arange(SENSOR[1]) < SENSOR[1] // 2
    with h5py.File(path.with_name(f"{path.stem}_masks.h5"), "w") as file:
        file["masks"] = np.broadcast_to(mask, (len(times), *SENSOR)).astype(np.uint8)
        file["t"] = times


def write_mvsec(path: Path, count: int, seconds: int) -> Path:
    """An MVSEC file with a texture that moves sideways, from 1.5e9 s on."""
    import h5py

    t, x, y, p = moving_events(count, seconds * 1_000_000)
    times = 1.5e9 + np.arange(seconds * FRAMES_PER_S) / FRAMES_PER_S
    texture = np.random.default_rng(0).integers(0, 2, (SENSOR[0] // 20, SENSOR[1] // 20 + 1)) * 160
    wide = np.kron(texture + 40, np.ones((20, 20), np.int64)).astype(np.uint8)
    frames = [np.roll(wide, 3 * i, axis=1)[: SENSOR[0], : SENSOR[1]] for i in range(len(times))]
    events = np.stack((x, y, 1.5e9 + t / 1e6, 2 * p - 1), axis=1)
    with h5py.File(path, "w") as file:
        left = file.create_group("davis/left")
        left["events"], left["image_raw"], left["image_raw_ts"] = events, np.stack(frames), times
        left["image_raw_event_inds"] = np.searchsorted(events[:, 2], times)
    return path


def write_table(path: Path, patients: int, levels: int) -> Path:
    """Responses as a CSV table: facts, labels and 200 points a row."""
    rng = np.random.default_rng(0)
    heads = ["patient_id", "age", "intensity", "rate", "fmp", "hear_loss", "v_latency"]
    heads += ["v_amplitude", "threshold", *map(str, range(1, 201))]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(heads)
        for patient in range(patients):
            for level in range(levels):
                facts = [f"p{patient}", 40, 20 + 10 * level, 27.7, 3.1, patient % 5, 5.8, 0.4, 30]
                writer.writerow([*facts, *np.round(rng.standard_normal(200), 4)])
    return path


def write_zuco(path: Path, sentences: int, seconds: float) -> Path:
    """A ZuCo 1.0 file: sentences with 105 channels at 500 Hz."""
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    kinds = [("content", object), ("rawData", object), ("omissionRate", object)]
    entries = np.zeros((1, sentences), dtype=kinds)
    for number in range(sentences):
        eeg = rng.standard_normal((105, int(500 * seconds))).astype(np.float32)
        entries[0, number] = (_sentence(rng, number), eeg, 0.1)
    savemat(path, {"sentenceData": entries})
    return path


def write_zuco2(path: Path, sentences: int, seconds: float) -> Path:
    """A ZuCo 2.0 file: HDF5 behind 512 bytes of MATLAB's, text as numbers, arrays transposed."""
    import h5py

    rng = np.random.default_rng(0)
    with h5py.File(path, "w", userblock_size=512) as file:
        names = ("content", "rawData")
        group = file.create_group("sentenceData")
        fields = {n: group.create_dataset(n, (sentences, 1), dtype=h5py.ref_dtype) for n in names}
        for number in range(sentences):
            text = np.array([[ord(c)] for c in _sentence(rng, number)], "u2")
            eeg = rng.standard_normal((int(500 * seconds), 105)).astype(np.float32)
            for name, value in zip(names, (text, eeg), strict=True):
                found = file.create_dataset(f"#refs#/{name}{number}", data=value)
                fields[name][number, 0] = found.ref
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM")
    return path


def write_dota(folder: Path, articles: int) -> Path:
    """Pages of text as PNG images of 800 by 1,100 pixels, with their translations."""
    from PIL import Image, ImageDraw, ImageFont

    rng, font = np.random.default_rng(0), ImageFont.load_default(18)
    names = [f"2101.{article:05}_{page}" for article in range(articles) for page in (1, 2)]
    for part in ("imgs", "en_mmd", "zh_mmd"):
        (folder / part).mkdir(parents=True)
    for number, name in enumerate(names):
        lines = [_sentence(rng, number) for _ in range(40)]
        page = Image.new("L", (800, 1100), 255)
        ImageDraw.Draw(page).multiline_text((60, 60), "\n".join(lines), font=font, fill=0)
        page.save(folder / "imgs" / f"{name}.png")
        for part in ("en_mmd", "zh_mmd"):
            (folder / part / f"{name}.mmd").write_text("\n".join(lines), encoding="utf-8")
    cut = max(2, len(names) // 10 // 2 * 2)
    parts = {"train": names[2 * cut :], "valid": names[:cut], "test": names[cut : 2 * cut]}
    split = {f"{part}_name_list": chosen for part, chosen in parts.items()}
    (folder / "split_dataset.json").write_text(json.dumps(split), encoding="utf-8")
    return folder


def write_text(path: Path, megabytes: int) -> Path:
    """Prose in paragraphs."""
    rng = np.random.default_rng(0)
    block = "\n\n".join(" ".join(_sentence(rng, i) for _ in range(8)) for i in range(2000))
    with path.open("w", encoding="utf-8") as file:
        for number in range(max(1, megabytes * 1_000_000 // len(block))):
            file.write(f"Part {number}.\n\n{block}\n\n")
    return path


def write_conversations(path: Path, count: int) -> Path:
    """Requests and answers, a JSON object a line."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = {"input": f"{number}: {_sentence(rng, number)}", "output": _sentence(rng, number)}
            file.write(json.dumps(row) + "\n")
    return path


def _sentence(rng: np.random.Generator, number: int) -> str:
    return LINE.format(*rng.choice(WORDS, 3), f"place {number}")
