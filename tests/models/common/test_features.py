"""The file of features has names, tokens, and the means of those that count."""

import io

import numpy as np

from models.common import predictions


def test_the_mean_leaves_out_tokens_that_are_not_valid():
    tokens = np.array(
        [[[1.0, 2.0], [3.0, 6.0], [99.0, 99.0]], [[5.0, 5.0], [9.0, 9.0], [9.0, 9.0]]]
    )
    valid = np.array([[True, True, False], [False, False, False]])
    more = {"start_s": np.array([0.5, 1.0])}
    found = predictions.features_file(
        "a", "A", ["one", "two"], tokens.astype(np.float32), valid, more
    )
    file = np.load(io.BytesIO(found.files[".npz"]))  # needs no pickle
    assert sorted(file) == ["features", "item", "mean", "start_s", "valid"]
    assert file["mean"].tolist() == [[2, 4], [0, 0]] and file["mean"].dtype == np.float32
    assert file["item"].tolist() == ["one", "two"]
    assert (file["features"] == tokens).all() and (file["valid"] == valid).all()
    assert found.text == "A: features, 2 × 3 × 2 [item × token × width]"
