import pickle

import numpy as np
import pytest

from gearshift.models.base import DataError
from gearshift.models.eeg_text.config import Data
from gearshift.models.eeg_text.formats import ZUCO, of_file
from gearshift.models.eeg_text.readers import files
from tests.models.eeg_text.readers.writers import (
    TEXTS,
    eeg,
    write_eeglab,
    write_matlab5,
    write_matlab73,
)
from tests.models.errors import error_of

WRITERS = {"5": write_matlab5, "7.3": write_matlab73}
every_kind = pytest.mark.parametrize("kind", WRITERS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "resultsYAC_NR.mat"


def read(path, on_bad="stop"):
    return files.read(str(path), Data(on_bad=on_bad), "text")


@every_kind
def test_sentences_with_eeg_are_found_and_those_without_counted(path, kind):
    found = read(WRITERS[kind](path))
    assert [item.text for item in found.items] == [TEXTS[0], TEXTS[1], TEXTS[3]]
    assert [item.samples for item in found.items] == [900, 300, 640]
    assert {item.subject for item in found.items} == {"YAC"}
    assert found.facts["without_eeg"] == {"YAC": 1}
    assert of_file(path) == found.facts["format"] == ZUCO
    items = pickle.loads(pickle.dumps(found.items))
    for number, sentence in enumerate((0, 1, 3)):
        np.testing.assert_allclose(items[number].load(), eeg(sentence).T.astype(np.float32))
    assert len(items[0].channels) == 105
    if kind == "5":  # a changed file is indexed again
        WRITERS[kind](path, {2: eeg(2, 200)})
        assert len(read(path).items) == 4


@every_kind
@pytest.mark.parametrize("length", [70, 105])  # shorter than the channels; as many: by the file
def test_the_axis_of_105_is_the_channel_axis(path, kind, length):
    own = eeg(1, length)
    found = read(WRITERS[kind](path, {1: own if kind == "5" else own.T}))
    np.testing.assert_allclose(found.items[1].load(), own.T.astype(np.float32))


@every_kind
def test_bad_eeg_is_an_error_or_skipped(path, kind):
    broken, huge, odd = eeg(1), eeg(0), np.zeros((104, 50))
    broken[3, 5], huge[3, 5] = np.nan, 1e30
    wrong = {0: huge, 1: broken, 3: odd}
    WRITERS[kind](path, {n: raw if kind == "5" else raw.T for n, raw in wrong.items()})
    where = error_of(read, path).where
    assert all(f"resultsYAC_NR.mat, sentence {n}: rawData" in where for n in (1, 2, 4))
    with pytest.raises(DataError, match=r"no EEG segment"):
        read(path, "skip")


@every_kind
def test_a_truncated_file_is_an_error(path, kind):
    whole = WRITERS[kind](path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"'resultsYAC_NR\.mat' cannot be read: "):
        read(path)


def test_a_file_without_sentence_data_is_an_error(path):
    from scipy.io import savemat

    savemat(path, {"other": np.zeros(3)})
    error = error_of(read, path)
    assert "sentenceData" in error.message and error.where == str(path)
    write_matlab73(path, leave_out=("rawData",))
    error = error_of(read, path)
    assert "rawData" in error.message and error.where == str(path)


def test_a_bad_file_among_several_is_skipped(tmp_path):
    write_matlab5(tmp_path / "resultsYAC_NR.mat")
    write_matlab73(tmp_path / "resultsYDR_TSR.mat")
    (tmp_path / "resultsYFR_NR.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(128) + bytes(40))
    with pytest.raises(DataError):
        read(tmp_path)
    found = read(tmp_path, "skip")
    assert sorted({item.subject for item in found.items}) == ["YAC", "YDR"]
    assert found.facts["bad"] == 1


def test_without_a_cache_a_file_is_read_once(path, tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "resultsYAC_NR.mat" / "below"))
    items = read(write_matlab5(path)).items
    monkeypatch.setattr("scipy.io.loadmat", None)
    np.testing.assert_allclose(items[1].load(), eeg(1).T.astype(np.float32))


@pytest.mark.parametrize("name", ["resultsYAC_NR.mat", "a.set"])
def test_numbers_of_a_type_that_ends_the_process_in_scipy_are_an_error(tmp_path, name):
    path = tmp_path / name
    write_matlab5(path) if path.suffix == ".mat" else write_eeglab(path)
    data = path.read_bytes()
    at = data.index(np.array([9, 8], "<i4").tobytes())  # the first element of one double
    path.write_bytes(data[:at] + b"\xc8" + data[at + 1 :])
    error = error_of(files.read, str(path), Data(), "encoder")
    assert error.where == str(path)
