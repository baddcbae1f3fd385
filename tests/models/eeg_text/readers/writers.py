"""Recordings in the formats of their programs, with made-up content."""

import numpy as np

from tests.edges.edf_files import edf_head

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
    count, scale = len(names), (-3276.8, 3276.7, -32768, 32767)
    head = edf_head(seconds, [(name, "uV", *scale, rate) for name in names])
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


RATE_HZ, SECONDS = 256, 20
EVENTS = [(2.0, "word"), (4.5, "pause"), (9.0, "word")]
"""Onset in seconds and name of the events that the next writers store."""
CODES = {"word": 7, "pause": 3}
"""Numbers of events in formats without names."""


def all_waves():
    """`waves` of a recording [channel, time], in microvolts."""
    return np.concatenate([waves(second, RATE_HZ) for second in range(SECONDS)], axis=1)


def _codes():
    codes = np.zeros(RATE_HZ * SECONDS)
    for onset, name in EVENTS:
        codes[int(onset * RATE_HZ) :][: RATE_HZ // 10] = CODES[name]
    return codes


def write_fif(
    path, names=NAMES, kind="eeg", bad=(), first_sample=1000, split="1GB", date=1_600_000_000
):
    """A FIF recording of volts in `names` of type `kind`, with events in an event channel.

    The first event is an annotation, too. The numbers of samples begin at `first_sample`.
    """
    import mne

    info = mne.create_info([*names, "STI 014"], RATE_HZ, [kind] * len(names) + ["stim"])
    info["bads"] = list(bad)
    info.set_meas_date(date)
    values = np.concatenate([all_waves() * 1e-6, _codes()[None]])
    raw = mne.io.RawArray(values, info, first_samp=first_sample, verbose="error")
    onset, name = EVENTS[0]
    raw.set_annotations(mne.Annotations([onset], [0.5], [name]))
    raw.save(path, overwrite=True, split_size=split, verbose="error")
    return path


def write_brainvision(path):
    """A BrainVision recording of tenths of a microvolt: header, markers and numbers."""
    channels = "".join(f"Ch{n}={name},,0.1,µV\n" for n, name in enumerate(NAMES, start=1))
    markers = "".join(
        f"Mk{n}=Comment,{name},{int(onset * RATE_HZ) + 1},1,0\n"
        for n, (onset, name) in enumerate(EVENTS, start=1)
    )
    data, marks = path.with_suffix(".eeg"), path.with_suffix(".vmrk")
    common = f"[Common Infos]\nCodepage=UTF-8\nDataFile={data.name}\n"
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n"
        f"{common}MarkerFile={marks.name}\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(NAMES)}\nSamplingInterval={1e6 / RATE_HZ}\n"
        f"[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\n{channels}",
        encoding="utf-8",
    )
    first = "Brain Vision Data Exchange Marker File, Version 1.0\n"
    marks.write_text(f"{first}{common}[Marker Infos]\n{markers}", encoding="utf-8")
    data.write_bytes(np.round(all_waves().T * 10).astype("<i2").tobytes())
    return path


def write_eeglab(path, events=EVENTS, trials=1):
    """An EEGLAB recording of microvolts: the structure EEG of MATLAB 5, and its numbers.

    `events`: onset and name, or onset and number.
    """
    from scipy.io import savemat

    location = np.zeros(len(NAMES), dtype=[("labels", object)])
    location["labels"] = NAMES
    event = np.zeros(
        len(events), dtype=[("type", object), ("latency", float), ("duration", object)]
    )
    for number, (onset, name) in enumerate(events):
        event[number] = (name, onset * RATE_HZ + 1, [])
    values = all_waves().astype("<f4")
    data = path.with_suffix(".fdt")
    data.write_bytes(values.T.tobytes())
    facts = {
        "nbchan": len(NAMES),
        "srate": RATE_HZ,
        "pnts": values.shape[1] // trials,
        "trials": trials,
    }
    facts |= {"xmin": 0.0, "xmax": SECONDS - 1 / RATE_HZ, "data": data.name, "setname": "a"}
    savemat(path, {"EEG": facts | {"chanlocs": location, "event": event, "epoch": [], "times": []}})
    return path
