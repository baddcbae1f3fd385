import pytest

from gearshift.models.eeg_text import formats


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
        ("a.cdt", b"any", None),
        ("a.txt", b"A child paints.", None),
        ("a.edf", b"", None),
    ],
)
def test_a_format_is_recognized_by_name_and_first_bytes(tmp_path, name, head, form):
    (tmp_path / name).write_bytes(head)
    assert formats.of_file(tmp_path / name) == form
    assert formats.recognize(tmp_path) == formats.recognize(tmp_path / name) == form


def test_a_folder_that_is_a_recording_is_not_searched(tmp_path):
    inner = tmp_path / "a.mff"
    inner.mkdir()
    (inner / "b.edf").write_bytes(b"0       X")
    assert formats.candidates(tmp_path) == formats.candidates(inner) == [inner]
    assert formats.recognize(tmp_path) == formats.recognize(inner) == "EGI .mff folders"
