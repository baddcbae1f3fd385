from __future__ import annotations

from pathlib import Path

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.config import feature_checks
from tests.launcher.given import resolved

ON = "continual.enabled=true"


@pytest.fixture
def messages(tmp_path, monkeypatch):
    """The error text of settings, in a folder with a folder of data."""
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    Path("texts/a.txt").touch()

    def lines(*sets: str, **options: str) -> str:
        with pytest.raises(SettingsError) as raised:
            resolved(ON, *sets, **options)
        return str(raised.value)

    return lines


def test_embedded_data_is_refused(messages):
    text = messages()
    assert "data.path 'embedded:python' is not a folder: new files cannot arrive there" in text
    assert "--data FOLDER" in text


def test_the_fix_for_a_file_is_its_folder(messages):
    assert "--data texts" in messages(data="texts/a.txt")


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (("save.last=false",), "saves no checkpoint that the next experience can start from"),
        (("data.control=noise",), "is a control run, which ends with its result"),
    ],
)
def test_contradicting_settings_are_refused(messages, sets, expected):
    assert expected in messages(*sets, data="texts")


def test_a_folder_is_accepted(messages):
    found = resolved(ON, data="texts")
    assert found.settings.continual.enabled


def test_settings_without_continual_learning_warn():
    found = resolved("continual.replay=0.25")
    assert any("has no effect: continual.enabled is false" in str(w) for w in found.warnings)


def test_torchrun_is_refused(messages):
    (error,) = feature_checks.check_launcher("torchrun", resolved(ON, data="texts").values)
    assert "cannot run under torchrun" in error.message
    assert not list(feature_checks.check_launcher("torchrun", resolved(data="texts").values))


def test_a_run_folder_inside_the_watched_folder_is_refused(messages):
    values = resolved(ON, data="texts").values
    assert [
        error.key for error in feature_checks.check_run_folder(Path("texts/runs/x"), values)
    ] == ["data.path"]
    assert not list(feature_checks.check_run_folder(Path("runs/x"), values))
