"""The checksum of pretrained weights is that of the names and contents of their files."""

import pytest

from gearshift.training.checkpoint.base_weights import digest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"one")
    (tmp_path / "b.safetensors").write_bytes(b"two")
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "b.safetensors").write_bytes(b"twp"),
        lambda folder: (folder / "b.safetensors").rename(folder / "c.safetensors"),
        lambda folder: (folder / "b.safetensors").unlink(),
        lambda folder: (folder / "c.safetensors").touch(),
    ],
)
def test_weights_of_another_content_name_or_number_of_files_are_others(folder, change):
    before = digest(folder)
    (folder / "config.json").write_text("{}")
    assert digest(folder) == before
    change(folder)
    assert digest(folder) != before
