import subprocess
import sys

import h5py
import numpy as np
import pytest

from tests.models.event_seg.writers import HEADERS

pytestmark = pytest.mark.slow
MIB = 2**20

WATCHED = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from models.event_seg.readers.mvsec import MvsecRecording
from models.event_seg.readers.prophesee import RawRecording

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

small, large, kind = map(Path, sys.argv[1:])
def read(path):
    if kind.name == "mvsec":
        recording = MvsecRecording(path, "a")
    else:
        recording = RawRecording(path, "a", 10, has_labels=False)
    seen = sum(len(recording.events(i)) for i in range(0, len(recording.windows), 10))
    assert seen > 10_000
read(small)
before = peak()
read(large)
print(peak() - before)
"""


def growth(tmp_path, small, large, kind):
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(small), str(large), kind],
        capture_output=True,
        text=True,
        check=False,
        env={"GEARSHIFT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": ".", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_raw_recording_of_150_mib_is_read_in_pieces(tmp_path):
    events = 1023
    block = np.empty(events + 1, "<u4")
    rng = np.random.default_rng(0)
    block[1:] = np.sort(rng.integers(0, 64, events)).astype(np.uint32) << 22
    block[1:] |= rng.integers(0, 64, events).astype(np.uint32) << 11 | 1 << 28
    paths = tmp_path / "small.raw", tmp_path / "large.raw"
    for path, blocks in zip(paths, (2_000, 150 * MIB // block.nbytes), strict=True):
        body = np.tile(block, (blocks, 1))
        body[:, 0] = 0x8 << 28 | np.arange(blocks, dtype=np.uint32)
        path.write_bytes(HEADERS["EVT2"] + body.tobytes())
    assert paths[1].stat().st_size > 150 * MIB - 4096
    assert growth(tmp_path, *paths, "raw") < 40 * MIB


def test_an_mvsec_recording_of_150_mib_is_read_in_windows(tmp_path):
    paths = tmp_path / "small.hdf5", tmp_path / "large.hdf5"
    for path, events in zip(paths, (200_000, 150 * MIB // 32), strict=True):
        t = 1.5e9 + np.arange(events) * 1e-6
        frames = 1.5e9 + np.arange(int(events * 1e-6 * 45)) / 45
        with h5py.File(path, "w") as file:
            group = file.create_group("davis/left")
            held = group.create_dataset("events", (events, 4), "f8", chunks=(4096, 4))
            held[:, 2] = t
            held[:, 3] = 1.0
            group["image_raw"] = np.zeros((len(frames), 26, 34), np.uint8)
            group["image_raw_ts"] = frames
            group["image_raw_event_inds"] = np.searchsorted(t, frames)
    assert growth(tmp_path, *paths, "mvsec") < 40 * MIB
