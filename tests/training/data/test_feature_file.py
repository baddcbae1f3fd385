"""Feature files are on disk completely or not at all."""

import pickle

import numpy as np
import pytest

from training.data import feature_cache as files


@pytest.fixture
def location(tmp_path):
    return tmp_path / "features-1"


def rows(count, first=0):
    numbers = np.arange(first, first + count)
    memory = numbers[:, None, None] + np.arange(6.0).reshape(3, 2) / 10
    return {"memory": memory.astype(np.float32), "samples": numbers * 7}


def finished(location):
    draft = files.draft(location, rows(1), 5)
    files.write(draft, 3, rows(2, 3))
    files.write(draft, 0, rows(3))
    files.finish(draft, location, {"seed": 0})


def test_rows_come_back_whatever_the_order_they_were_written_in(location):
    finished(location)
    found = pickle.loads(pickle.dumps(files.read(location)))
    for number in (4, 0, 2):
        np.testing.assert_array_equal(found[number]["memory"], rows(5)["memory"][number])
        assert found[number]["samples"] == number * 7
    assert files.Rows(location, 3)[1]["samples"] == 4 * 7
    # numpy alone reads them, too.
    np.testing.assert_array_equal(np.load(location / "memory.npy"), rows(5)["memory"])
    assert [path.name for path in location.parent.iterdir()] == [location.name]


def test_an_unfinished_or_truncated_cache_is_not_found(location):
    draft = files.draft(location, rows(1), 5)
    files.write(draft, 0, rows(5))
    assert files.read(location) is None and files.read(draft) is None
    finished(location)
    path = location / "memory.npy"
    path.write_bytes(path.read_bytes()[:-1])
    assert files.read(location) is None
