import pytest

from models.eeg_text import formats
from tests.models.eeg_text.readers.writers import write_brainvision

NO_EEG = {".hdr", ".snirf", ".bin", ".txt", ".asc"}
"""Suffixes that MNE reads light, magnetic fields or eyes from."""
PARTS = {".dat", ".rs3", ".cdt.dpa", ".cdt.cef", ".cef"}
"""Files of a Curry recording beside its .cdt or .dap."""
NEEDS_INFO = {".mat"}
"""MNE reads it only with facts that no file has."""


def test_every_suffix_that_mne_reads_eeg_from_is_known():
    from mne.io._read_raw import _get_supported

    assert set(_get_supported()) - set(formats.SUFFIXES) <= NO_EEG | PARTS | NEEDS_INFO
    own = {".mat", ".txt"}
    assert set(formats.SUFFIXES) - set(_get_supported()) <= own


@pytest.mark.parametrize(
    ("name", "head", "form"),
    [
        ("a.EDF", b"0       X", formats.EDF),
        ("a.gdf", b"GDF 2.20", "GDF recordings"),
        ("a.cnt", b"RIFF1234CNT ", "Neuroscan or ANT .cnt recordings"),
        ("a.eeg", b"EEG-1100C V01.00", "Nihon Kohden .eeg recordings"),
        ("a.eeg", bytes(16), None),
        ("a.dat", b"HeaderLen= 1234", "BCI2000 .dat recordings"),
        ("a.dat", b"% Date 2020", None),
        ("a.vhdr", b"BrainVision Data Exchange", formats.BRAINVISION),
        ("a.fif.gz", b"\x1f\x8b\x08", formats.FIF),
        ("a.fif", b"\0\0\0\x64\0\0\0\x1f", formats.FIF),
        ("a.cdt", b"any", "Curry .cdt or .dap recordings"),
        ("a.data", b"any", None),
        ("a.txt", b"A child paints.", None),
        ("a.edf", b"", None),
    ],
)
def test_a_format_is_recognized_by_name_and_first_bytes(tmp_path, name, head, form):
    (tmp_path / name).write_bytes(head)
    assert formats.of_file(tmp_path / name) == form
    assert formats.recognize(tmp_path) == formats.recognize(tmp_path / name) == form


def test_nicolet_data_needs_its_head(tmp_path):
    for name in ("a.data", "a.head"):
        (tmp_path / name).write_text("any")
    assert formats.recognize(tmp_path) == "Nicolet .data recordings, with their .head"


def test_a_folder_that_is_a_recording_is_not_searched(tmp_path):
    inner = tmp_path / "a.mff"
    inner.mkdir()
    (inner / "b.edf").write_bytes(b"0       X")
    assert formats.candidates(tmp_path) == formats.candidates(inner) == [inner]
    assert formats.recognize(tmp_path) == formats.recognize(inner) == "EGI .mff folders"


def test_the_data_file_of_a_recording_is_no_recording(tmp_path):
    path = write_brainvision(tmp_path / "a.vhdr")
    (tmp_path / ".b.edf").write_bytes(b"0       X")
    assert [p for p in formats.candidates(tmp_path) if formats.of_file(p)] == [path]
