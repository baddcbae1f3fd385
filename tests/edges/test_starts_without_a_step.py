"""A start that took no step leaves its folder to the next start; a run that starts keeps it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import SettingsError
from launcher.config.settings_file import read_values
from launcher.run_folder import run_folder
from tests.launcher.given import resolved
from tests.launcher.runs import NAME, begun
from tests.launcher.saved_runs import contents

MINE = Path("mine")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def create(folder=MINE):
    return run_folder.create(resolved(mode="fast"), folder, NAME)


def mode_of(folder=MINE):
    return read_values(folder / "settings.yaml")["mode"]


def is_refused(folder=MINE):
    """Whether a new run in `folder` is refused, which leaves it as it was."""
    before = contents(folder)
    assert run_folder.writing_errors(folder, "--out", replaces_starts=True)
    with pytest.raises(SettingsError, match=r"contains another run|is not empty"):
        create(folder)
    return contents(folder) == before


def test_a_start_that_took_no_step_is_replaced():
    begun(MINE, resolved())
    for name in ("split.json", "tokenizer.json", "events.jsonl", "result.json", ".lock"):
        (MINE / name).write_text("{}")
    (MINE / "metrics.jsonl").touch()
    (MINE / "samples").mkdir()
    assert main(["--model", "language:tiny", "--out", "mine", "--dry-run"]) == 0
    created = create()
    assert mode_of() == "fast"
    files = [".lock", "log.txt", "origins.json", "settings.yaml"]
    assert sorted(path.name for path in MINE.iterdir()) == files
    assert created.discard()
    assert [path.name for path in MINE.iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["notes.txt", "data", "generations.jsonl"])
def test_a_file_of_the_user_or_of_a_job_keeps_the_folder(name):
    begun(MINE, resolved())
    (MINE / name).mkdir() if name == "data" else (MINE / name).touch()
    assert is_refused()


@pytest.mark.parametrize("start", [create, lambda: run_folder.open_existing(MINE)])
def test_a_run_that_starts_or_is_resumed_keeps_its_folder(start):
    begun(MINE, resolved())
    starting = start()
    assert is_refused()
    del starting
    assert create().path == MINE


def test_of_many_starts_at_once_one_replaces_the_folder():
    begun(MINE, resolved())
    together = threading.Barrier(8)

    def start(_):
        together.wait()
        with suppress(SettingsError):
            return create()

    with ThreadPoolExecutor(8) as pool:
        created = list(filter(None, pool.map(start, range(8))))
    assert len(created) == 1 and mode_of() == "fast"
