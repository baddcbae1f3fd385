"""Datasets that claim more than their file stores are found before they are read."""

import h5py
import numpy as np
import pytest

from models.common.data_files import hdf5_problem


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "some.h5", "w") as opened:
        yield opened


@pytest.mark.parametrize("options", [{}, {"chunks": (3, 2)}, {"compression": "gzip"}])
def test_a_complete_dataset_has_no_problem(file, options):
    assert hdf5_problem(file.create_dataset("a", data=np.ones((10, 4)), **options)) is None


def test_an_empty_or_a_scalar_dataset_has_no_problem(file):
    assert hdf5_problem(file.create_dataset("a", data=np.ones((0, 4)))) is None
    assert hdf5_problem(file.create_dataset("b", (0, 4), np.float32, maxshape=(None, 4))) is None
    assert hdf5_problem(file.create_dataset("c", data=1.5)) is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "claims 1,000,000,000,000 values, but the file stores 0"),
        (
            {"chunks": (1000,), "compression": "gzip"},
            "claims 1,000,000,000,000 values in 1,000,000,000 chunks, but the file stores 0",
        ),
        ({"chunks": (2**27,)}, "has chunks of 134,217,728 values, each read at once"),
    ],
)
def test_a_claim_of_a_terabyte_is_found(file, options, problem):
    assert hdf5_problem(file.create_dataset("a", (10**12,), np.float32, **options)) == problem


def test_a_dataset_that_was_written_in_part_is_found(file):
    found = file.create_dataset("a", (100, 4), np.float32, chunks=(10, 4))
    found[:25] = 1
    assert hdf5_problem(found) == "claims 100 × 4 values in 10 chunks, but the file stores 3"
