import pickle

import numpy as np
import pytest

from models.base import DataError
from models.eeg_text.formats import ZUCO, of_file
from models.eeg_text.readers import files, zuco
from models.eeg_text.recordings import ReadingOptions
from tests.models.eeg_text.readers.writers import TEXTS, eeg, write_matlab5, write_matlab73

WRITERS = {"5": write_matlab5, "7.3": write_matlab73}
every_kind = pytest.mark.parametrize("kind", WRITERS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "resultsYAC_NR.mat"


@every_kind
def test_sentences_with_eeg_are_found_and_those_without_counted(path, kind):
    found = zuco.read(WRITERS[kind](path), "stop")
    assert [item.text for item in found.items] == [TEXTS[0], TEXTS[1], TEXTS[3]]
    assert [item.samples for item in found.items] == [900, 300, 640]
    assert {item.subject for item in found.items} == {"YAC"}
    assert found.left_out["without_eeg"] == 1 and found.notes == {"without_eeg": {"YAC": 1}}
    assert of_file(path) == found.form == ZUCO


@every_kind
def test_eeg_is_read_as_time_by_channels(path, kind):
    items = pickle.loads(pickle.dumps(zuco.read(WRITERS[kind](path), "stop").items))
    for number, sentence in enumerate((0, 1, 3)):
        np.testing.assert_allclose(items[number].load(), eeg(sentence).T.astype(np.float32))
    assert len(items[0].channels) == 105


@every_kind
def test_the_axis_of_105_is_the_channel_axis_even_if_it_is_longer(path, kind):
    short = eeg(1, 70)
    given = {1: short if kind == "5" else short.T}
    found = zuco.read(WRITERS[kind](path, given), "stop")
    np.testing.assert_allclose(found.items[1].load(), short.T.astype(np.float32))


@every_kind
def test_with_two_axes_of_105_the_kind_of_file_decides(path, kind):
    square = eeg(1, 105)
    given = {1: square if kind == "5" else square.T}
    found = zuco.read(WRITERS[kind](path, given), "stop")
    np.testing.assert_allclose(found.items[1].load(), square.T.astype(np.float32))


@every_kind
def test_values_that_no_electrode_gives_are_an_error(path, kind):
    huge = eeg(1)
    huge[3, 5] = 1e30
    WRITERS[kind](path, {0: huge if kind == "5" else huge.T})
    with pytest.raises(DataError, match=r"sentence 1: rawData reaches 1e\+30 µV, above 1e\+06"):
        zuco.read(path, "stop")


@every_kind
def test_bad_eeg_is_an_error_or_skipped(path, kind):
    broken = eeg(1)
    broken[3, 5] = np.nan
    odd = np.zeros((104, 50))
    wrong = {1: broken if kind == "5" else broken.T, 3: odd if kind == "5" else odd.T}
    WRITERS[kind](path, wrong)
    with pytest.raises(DataError) as error:
        zuco.read(path, "stop")
    shape = "104 x 50" if kind == "5" else "50 x 104"
    assert str(error.value) == (
        "2 of 3 sentences cannot be used\n"
        "  where         resultsYAC_NR.mat, sentence 2: rawData has non-finite values\n"
        f"                resultsYAC_NR.mat, sentence 4: rawData is {shape}, "
        "without an axis of 105 channels\n"
        "  fix           correct resultsYAC_NR.mat, sentence 2 and the others, or skip them with  --set data.on_bad=skip"
    )
    assert zuco.read(path, "skip").left_out["bad"] == 2


@every_kind
def test_a_truncated_file_is_an_error(path, kind):
    whole = WRITERS[kind](path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"'resultsYAC_NR\.mat' cannot be read: "):
        zuco.read(path, "stop")


def test_a_file_without_sentence_data_is_an_error(path):
    from scipy.io import savemat

    savemat(path, {"other": np.zeros(3)})
    with pytest.raises(DataError) as error:
        zuco.read(path, "stop")
    assert error.value.message == "'resultsYAC_NR.mat' has no sentenceData"
    write_matlab73(path, leave_out=("rawData",))
    with pytest.raises(DataError) as error:
        zuco.read(path, "stop")
    assert error.value.message == "'resultsYAC_NR.mat' has no sentenceData/rawData"


def test_a_bad_file_among_several_is_skipped(tmp_path):
    write_matlab5(tmp_path / "resultsYAC_NR.mat")
    write_matlab73(tmp_path / "resultsYDR_TSR.mat")
    (tmp_path / "resultsYFR_NR.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(128) + bytes(40))
    with pytest.raises(DataError):
        zuco.read(tmp_path, "stop")
    found = zuco.read(tmp_path, "skip")
    assert sorted({item.subject for item in found.items}) == ["YAC", "YDR"]
    assert found.left_out["bad"] == 1


def test_a_file_without_any_eeg_is_an_error(path):
    nothing = {number: np.array([[np.nan]]) for number in range(4)}
    write_matlab5(path, nothing)
    with pytest.raises(DataError, match=r"no sentence of .* has EEG"):
        zuco.read(path, "stop")


def test_a_changed_file_is_indexed_again(path):
    write_matlab5(path)
    assert len(zuco.read(path, "stop").items) == 3
    write_matlab5(path, {2: eeg(2, 200)})
    assert len(zuco.read(path, "stop").items) == 4


def test_columns_of_tables_are_not_those_of_a_mat_file(path):
    write_matlab5(path)
    with pytest.raises(DataError, match="has ZuCo files, which need none") as error:
        files.read(str(path), ReadingOptions(columns={"a": "text"}))
    assert error.value.fix == "remove data.columns"
