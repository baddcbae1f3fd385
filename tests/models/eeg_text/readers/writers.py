"""Recordings in the formats of their programs, with made-up content."""

import numpy as np

TEXTS = [
    "The old man finds a drum.",
    "A child paints the island!",
    "Who sells the lamp?",
    "the OLD man finds a drum",
]
LENGTHS = [900, 300, 0, 640]
"""Samples of each sentence; the third has no EEG."""


def eeg(number, length=None):
    """EEG [105, time] of a sentence, different for each."""
    rng = np.random.default_rng(number)
    return rng.standard_normal((105, LENGTHS[number] if length is None else length)) * 10


def write_matlab5(path, raw=None):
    """A ZuCo 1.0 file; `raw` gives the rawData of sentences by their number."""
    from scipy.io import savemat

    raw = raw or {}
    entries = np.zeros((1, len(TEXTS)), dtype=[("content", object), ("rawData", object), ("omissionRate", object)])  # fmt: skip
    for number, text in enumerate(TEXTS):
        found = raw.get(number, eeg(number) if LENGTHS[number] else np.nan)
        entries[0, number] = (text, found, 0.25)
    savemat(path, {"sentenceData": entries})
    return path


def write_matlab73(path, raw=None, leave_out=()):
    """A ZuCo 2.0 file: HDF5 behind 512 bytes of MATLAB's, text as numbers, arrays transposed."""
    import h5py

    raw = raw or {}
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("sentenceData")
        fields = {
            name: group.create_dataset(name, (len(TEXTS), 1), dtype=h5py.ref_dtype)
            for name in ("content", "rawData")
            if name not in leave_out
        }
        for number, text in enumerate(TEXTS):
            entry = file.create_dataset(f"#refs#/c{number}", data=np.array([[ord(c)] for c in text], "u2"))  # fmt: skip
            if "content" in fields:
                fields["content"][number, 0] = entry.ref
            found = raw.get(number, eeg(number).T if LENGTHS[number] else np.array([[np.nan]]))
            entry = file.create_dataset(f"#refs#/r{number}", data=found)
            if number == 2 and number not in raw:
                del file[f"#refs#/r{number}"]
                entry = file.create_dataset(f"#refs#/r{number}", data=np.zeros(2, "u8"))
                entry.attrs["MATLAB_empty"] = 1
            if "rawData" in fields:
                fields["rawData"][number, 0] = entry.ref
    with path.open("r+b") as stream:
        stream.write(
            b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM"
        )
    return path


def write_edf(path, names, seconds, rate=256, make=None, holes=False):
    """An EDF recording of 1 s a record, in microvolts; `make(second)` gives [channel, time].

    With `holes` nothing is written where the numbers are 0, so that a large one takes no room.
    """
    count = len(names)

    def fields(values, width):
        return b"".join(str(value).ljust(width).encode() for value in values)

    head = fields(["0"], 8) + fields(["X X X X", "Startdate X X X X"], 80)
    head += fields(["01.01.20", "00.00.00"], 8) + fields([256 * (count + 1)], 8) + fields([""], 44)
    head += fields([seconds, 1], 8) + fields([count], 4)
    for values, width in (
        (names, 16), ([""] * count, 80), (["uV"] * count, 8), ([-3276.8] * count, 8),
        ([3276.7] * count, 8), ([-32768] * count, 8), ([32767] * count, 8), ([""] * count, 80),
        ([rate] * count, 8), ([""] * count, 32),
    ):  # fmt: skip
        head += fields(values, width)
    with path.open("wb") as stream:
        stream.write(head)
        if holes:
            stream.truncate(len(head) + seconds * count * rate * 2)
        else:
            for second in range(seconds):
                stream.write(np.round(make(second) * 10).astype("<i2").tobytes())
    return path


NAMES = ["Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "Fz", "Cz", "Pz"]


def waves(second, rate=256):
    """A wave of 10 Hz and 20 microvolts in each channel, each with a phase of its own."""
    time = second + np.arange(rate) / rate
    return 20 * np.sin(2 * np.pi * 10 * time + np.arange(len(NAMES))[:, None])
