import io

import numpy as np

from gearshift.models.common import predictions
from gearshift.models.common.family import spread_positions
from gearshift.models.common.predictions import DistinctNames, FixedDraws


def test_files_of_a_folder_that_are_no_input_are_named(tmp_path):
    (tmp_path / "a.ds").mkdir()
    for name in ("s_eeg.vhdr", "s_eeg.vmrk", "s_eeg-anna.txt", "s_eegs.txt", "a.ds/b", "README.md"):
        (tmp_path / name).touch()
    used = [tmp_path / "s_eeg.vhdr", tmp_path / "a.ds"]
    (others,) = predictions.passed_over(tmp_path, used)
    assert others.text.endswith(": README.md, s_eegs.txt") and not others.files
    assert not list(predictions.passed_over(used[0], used))


def test_names_have_only_letters_digits_and_a_few_signs():
    for text, name in (
        ("a/b c.raw", "a-b-c.raw"),
        ("../x", "x"),
        ("ABR: 80 dB, click", "ABR-80-dB-click"),
        ("学校_1", "学校_1"),
        ("...", "input"),
        ("", "input"),
    ):
        assert DistinctNames().of(text) == name
    names = DistinctNames()  # none is given twice, also without case
    given = [names.of(text) for text in ("a b", "a-b", "A-B", "a-b-2", "a b")]
    assert given == ["a-b", "a-b-2", "A-B-3", "a-b-2-2", "a-b-4"]


def test_positions_are_spread_over_a_split_of_any_size():
    assert spread_positions(1, 4) == [0]
    assert spread_positions(3, 4) == [0, 1, 2]
    assert spread_positions(101, 3) == [0, 50, 100]
    assert FixedDraws().rng().random() == FixedDraws().rng().random()


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
