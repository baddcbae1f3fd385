import io

import numpy as np
import pytest

from models.base import DataError
from models.common import predictions
from models.common.predictions import DistinctNames, FixedDraws, input_errors, spread_positions


def test_errors_of_readers_name_the_option_instead_of_the_setting():
    with pytest.raises(DataError) as error, input_errors():
        raise DataError(
            "data.path 'x' does not exist",
            where="data.path",
            allowed="a table",
            did_you_mean="y",
            fix="correct page 1",
        )
    assert str(error.value) == (
        "--input 'x' does not exist\n"
        "  where         --input\n"
        "  allowed       a table\n"
        "  did you mean  y\n"
        "  fix           correct page 1"
    )


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


@pytest.mark.parametrize(
    ("fix", "shown"),
    [
        ("correct page 1, or skip them with  --set data.on_bad=skip", "correct page 1"),
        (
            "--set 'data.columns=[a=ignore]'",
            "name the columns as in the data of the run, or remove them from the file",
        ),
        ("pip install pyarrow", "pip install pyarrow"),
    ],
)
def test_a_fix_for_an_input_has_no_setting_of_the_data(fix, shown):
    with pytest.raises(DataError) as error, input_errors():
        raise DataError("wrong", fix=fix)
    assert error.value.fix == shown


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
