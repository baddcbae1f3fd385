"""Feature files are on disk completely or not at all."""

import pickle

import numpy as np
import pytest

from training.data import feature_cache as files
from training.data.feature_cache import FeatureDraft, Form, Rows

FORMS = {"memory": Form("<f4", (3, 2)), "samples": Form("<i8", ())}


@pytest.fixture
def location(tmp_path):
    return tmp_path / "features-1"


def rows(count, first=0):
    numbers = np.arange(first, first + count)
    memory = numbers[:, None, None] + np.arange(6.0).reshape(3, 2) / 10
    return {"memory": memory.astype(np.float32), "samples": numbers * 7}


def test_rows_come_back_whatever_the_order_they_were_written_in(location):
    draft = FeatureDraft(location, FORMS, 5)
    files.write(draft.folder, 3, rows(2, 3))
    files.write(draft.folder, 0, rows(3))
    draft.finish({"seed": 0})
    found = pickle.loads(pickle.dumps(files.read(location)))
    for number in (4, 0, 2):
        np.testing.assert_array_equal(found[number]["memory"], rows(5)["memory"][number])
        assert found[number]["samples"] == number * 7
    # numpy alone reads them, too.
    np.testing.assert_array_equal(np.load(location / "memory.npy"), rows(5)["memory"])
    assert [path.name for path in location.parent.iterdir()] == [location.name]


def test_an_unfinished_draft_is_not_found(location):
    draft = FeatureDraft(location, FORMS, 5)
    files.write(draft.folder, 0, rows(5))
    assert files.read(location) is None
    draft.abandon()
    assert not list(location.parent.iterdir())


def test_drafts_of_killed_processes_are_deleted_and_live_ones_are_not(location):
    making = FeatureDraft(location, FORMS, 5)
    killed = FeatureDraft(location, FORMS, 5)
    killed._lock.close()  # as the system does when a process ends
    again = FeatureDraft(location, FORMS, 5)
    assert making.folder.is_dir() and not killed.folder.exists()
    for draft in (again, making):  # the first is kept, the other one finds it
        files.write(draft.folder, 0, rows(5))
        draft.finish({})
    assert [path.name for path in location.parent.iterdir()] == [location.name]
    assert files.read(location)[1]["samples"] == 7


def test_a_truncated_file_is_found(location):
    draft = FeatureDraft(location, FORMS, 5)
    files.write(draft.folder, 0, rows(5))
    draft.finish({})
    path = location / "memory.npy"
    path.write_bytes(path.read_bytes()[:-1])
    assert files.read(location) is None
    with pytest.raises(ValueError, match="is incomplete"):
        Rows(location)
