from __future__ import annotations

import io

import numpy as np
import pytest

from models.common.array_file import ArrayFile


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32])
@pytest.mark.parametrize("lengths", [(), (0,), (3, 0, 70_000), range(40)])
def test_numpy_loads_what_was_appended(dtype, lengths):
    file, parts = io.BytesIO(), [np.arange(n).astype(dtype) for n in lengths]
    array = ArrayFile(file, dtype)
    for part in parts:
        array.append(part)
    array.finish()
    loaded = np.load(io.BytesIO(file.getvalue()), allow_pickle=False)
    assert loaded.dtype == dtype and array.length == len(loaded)
    assert loaded.tolist() == np.concatenate([*parts, np.empty(0, dtype)]).tolist()


def test_a_file_that_was_not_finished_holds_nothing():
    file = io.BytesIO()
    ArrayFile(file, np.int64).append(np.arange(5))
    assert np.load(io.BytesIO(file.getvalue())).tolist() == []
