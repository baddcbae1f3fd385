from __future__ import annotations

from pathlib import Path

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.continual import checks
from tests.launcher.given import resolved

ON = "continual.enabled=true"


@pytest.fixture
def said(tmp_path, monkeypatch):
    """What is said to words that stand in a folder with a folder and a file of data."""
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    Path("texts/a.txt").touch()

    def lines(*sets: str, **words: str) -> str:
        with pytest.raises(SettingsError) as raised:
            resolved(ON, *sets, **words)
        return str(raised.value)

    return lines


def test_embedded_data_never_changes(said):
    told = said()
    assert "data.path 'embedded:python' is no folder that new files could come into" in told
    assert "write  --data FOLDER" in told


def test_a_file_is_answered_with_its_folder(said):
    assert "mend     write  --data texts" in said(data="texts/a.txt")


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (("save.last=false",), "leaves nothing that the next experience could go on from"),
        (("data.control=noise",), "is a control, which ends with its result"),
        (("continual.on_change=learn",), "would replay changed files"),
        (("continual.refetch_every_s=60",), "has nothing to fetch again"),
    ],
)
def test_settings_that_do_not_go_with_it_are_refused(said, sets, told):
    assert told in said(*sets, data="texts")


def test_a_folder_is_watched(said):
    found = resolved(ON, data="texts")
    assert found.settings.continual.enabled


def test_settings_of_a_watch_count_for_nothing_without_one():
    found = resolved("continual.replay=0.25")
    assert any("counts only where continual.enabled is true" in str(w) for w in found.warnings)


def test_under_torchrun_nobody_could_watch(said):
    (fault,) = checks.placed("torchrun", resolved(ON, data="texts").values)
    assert "torchrun has started the processes" in fault.what
    assert not list(checks.placed("torchrun", resolved(data="texts").values))


def test_a_run_folder_inside_of_the_data_is_refused(said):
    values = resolved(ON, data="texts").values
    assert [fault.key for fault in checks.within(Path("texts/runs/x"), values)] == ["data.path"]
    assert not list(checks.within(Path("runs/x"), values))
