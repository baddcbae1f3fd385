"""An HDF5 file that leads to other files gives one error, and nothing of them reaches the cache."""

import h5py
import numpy as np
import pytest

from gearshift.models.eeg_text.config import Data
from gearshift.models.eeg_text.readers import files
from gearshift.models.event_seg.formats import MVSEC, recognize
from gearshift.models.event_seg.readers.files import open_recording
from tests.models.eeg_text.readers.writers import write_matlab73
from tests.models.errors import error_of
from tests.models.event_seg.writers import random_events, write_dsec, write_mvsec


def eeg(path):
    return files.read(str(path), Data(), "text")


def events(path):
    return open_recording(path, path.name, MVSEC)


def predicted(path):
    return open_recording(path, path.name, recognize(path), 7, trained=(1, 1))


def set_of_eeglab(path):
    """An EEGLAB file in HDF5, of which only the arrays are like those of EEGLAB."""
    with h5py.File(path, "w") as file:
        file["EEG/data"] = np.zeros((4, 300))
        file["EEG/srate"] = np.full((1, 1), 250.0)


ARRAYS = [
    ("indoor_data.hdf5", write_mvsec, events, "davis/left/events"),
    ("indoor_data.hdf5", write_mvsec, events, "davis/left/image_raw"),
    ("events.h5", lambda path: write_dsec(path, random_events(99, 9999)), predicted, "events/x"),
    ("events.h5", lambda path: write_dsec(path, random_events(99, 9999)), predicted, "t_offset"),
    ("resultsA_NR.mat", write_matlab73, eeg, "sentenceData/rawData"),
    ("resultsA_NR.mat", write_matlab73, eeg, "sentenceData/content"),
    ("resultsA_NR.mat", write_matlab73, eeg, "#refs#/r0"),
    ("a.set", set_of_eeglab, eeg, "EEG/data"),
]


def replaced(path, name, other, kind):
    """Replace the array `name` by one of the same shape whose numbers are in the file `other`."""
    with h5py.File(path, "r+") as file:
        shape, dtype, references = (
            file[name].shape,
            file[name].dtype,
            file.get("sentenceData/rawData"),
        )
        del file[name]
        if kind == "link":
            file[name] = h5py.ExternalLink(str(other), "values")
        elif kind == "external" and shape:
            size = int(np.prod(shape)) * dtype.itemsize
            file.create_dataset(name, shape, dtype, external=[("/dev/zero", 0, size)])
        else:
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource(str(other), "values", shape, dtype)
            file.create_virtual_dataset(name, layout)
        if "#refs#" in name:
            references[0, 0] = file[name].ref


# References name arrays of their own file, so none is a link.
CASES = [
    (*case, kind)
    for case in ARRAYS
    for kind in (
        ("external", "virtual") if "#refs#" in case[-1] else ("external", "virtual", "link")
    )
]


@pytest.mark.parametrize(("name", "write", "read", "array", "kind"), CASES)
def test_an_array_in_another_file_is_refused(tmp_path, monkeypatch, name, write, read, array, kind):
    cache = tmp_path / "cache"
    monkeypatch.setenv("GEARSHIFT_CACHE", str(cache))
    path, other = tmp_path / name, tmp_path / "other.h5"
    write(path)
    with h5py.File(path) as whole, h5py.File(other, "w") as file:
        whole.copy(array, file, "values")
    replaced(path, array, other, kind)
    error = error_of(read, path)
    assert error.where.startswith(str(path))
    assert not list(cache.rglob("*.npy"))
