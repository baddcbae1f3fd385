"""The run folder: its name, its files, and its removal if nothing was trained."""

import json
import threading
from contextlib import suppress
from datetime import datetime

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.run_folder import run_folder
from tests.launcher.given import resolved
from training.storage import Storage, StorageError

NOW = datetime(2025, 1, 31, 14, 25, 1)
NAME = "language-tiny-fast-zero2-20250131-142501"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_name_contains_model_mode_engine_and_time():
    assert run_folder.default_name("language:tiny", "fast", "zero2", NOW) == NAME


def test_a_run_without_a_folder_gets_one_below_runs(here):
    created = run_folder.create(resolved(), None, NAME)
    assert created.path == run_folder.PARENT / NAME
    assert names(here / "runs" / NAME) == ["log.txt", "origins.json", "settings.yaml"]


def test_two_starts_in_one_second_get_two_folders(here):
    created = [run_folder.create(resolved(), None, NAME).path.name for _ in range(3)]
    assert created == [NAME, f"{NAME}-2", f"{NAME}-3"]


def created_together(out, starts: int = 8):
    """The folders of starts at the same instant, without the refused ones."""
    created = []
    together = threading.Barrier(starts)
    settings = resolved()

    def start():
        together.wait()
        with suppress(SettingsError):
            created.append(run_folder.create(settings, out, NAME).path)

    threads = [threading.Thread(target=start) for _ in range(starts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return created


def test_starts_at_the_same_instant_never_share_a_folder(here):
    assert len(set(created_together(None))) == 8


@pytest.mark.parametrize("exists", [True, False])
def test_one_of_the_starts_into_one_folder_gets_it(here, exists):
    if exists:
        (here / "mine").mkdir()
    assert created_together(here / "mine") == [here / "mine"]
    assert names(here / "mine") == ["log.txt", "origins.json", "settings.yaml"]


def test_the_saved_settings_resolve_to_the_same_settings(here):
    first = resolved("optim.betas=[0.8, 0.9]", mode="fast", nproc="2", lr="3e-4")
    created = run_folder.create(first, None, NAME)
    again = resolved(model=None, configs=[created.path / "settings.yaml"])
    assert again.settings == first.settings
    assert again.batching == first.batching


def test_the_origins_are_kept_with_what_was_replaced(here):
    created = run_folder.create(resolved(lr="3e-4"), None, NAME)
    lr = json.loads((created.path / "origins.json").read_text())["optim.lr"]
    assert (lr["value"], lr["origin"]) == (3e-4, "--lr 3e-4")
    assert lr["replaced"]


@pytest.mark.parametrize("before", [None, (), ("notes.txt",)])
def test_a_requested_folder_is_used(here, before):
    mine = here / "mine"
    if before is not None:
        mine.mkdir()
        for name in before:
            (mine / name).touch()
    created = run_folder.create(resolved(), mine, NAME)
    assert created.path == mine
    assert set(names(mine)) == {"log.txt", "origins.json", "settings.yaml", *(before or ())}


@pytest.mark.parametrize("part", ["settings.yaml", "result.json", "metrics.jsonl", "checkpoints"])
def test_a_folder_of_another_run_is_refused(here, part):
    (here / "mine").mkdir()
    (here / "mine" / part).touch()
    with pytest.raises(SettingsError) as refused:
        run_folder.create(resolved(), here / "mine", NAME)
    assert "contains another run" in str(refused.value)
    assert "without --out, a new folder in runs/" in str(refused.value)
    assert f"python -m launcher resume {here}/mine" in str(refused.value)
    assert names(here) == ["mine", f"mine/{part}"]


def test_the_slower_of_two_starts_into_one_folder_leaves_it_alone(here):
    run_folder.create(resolved(), here / "mine", NAME)
    before = (here / "mine" / "settings.yaml").read_text()
    with pytest.raises(SettingsError):
        run_folder.create(resolved(mode="fast"), here / "mine", NAME)
    assert (here / "mine" / "settings.yaml").read_text() == before


def test_a_discarded_folder_takes_its_new_parents_along(here):
    (here / "old").mkdir()
    created = run_folder.create(resolved(), here / "old" / "a" / "b", NAME)
    (created.path / "tokenizer").mkdir()
    (created.path / "tokenizer" / "merges.txt").touch()
    assert created.discard()
    assert names(here) == ["old"]


def test_a_discarded_folder_leaves_what_was_there_before(here):
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").touch()
    created = run_folder.create(resolved(), here / "mine", NAME)
    (created.path / "tokenizer").mkdir()
    assert created.discard()
    assert names(here) == ["mine", "mine/notes.txt"]


def test_runs_of_others_stay_where_one_is_discarded(here):
    run_folder.create(resolved(), None, "other")
    assert run_folder.create(resolved(), None, NAME).discard()
    assert names(here / "runs")[0] == "other"


@pytest.mark.parametrize("part", ["metrics.jsonl", "checkpoints/step-00000001"])
def test_a_trained_run_is_never_discarded(here, part):
    created = run_folder.create(resolved(), None, NAME)
    (created.path / part).parent.mkdir(exist_ok=True)
    (created.path / part).write_text("{}\n")
    assert not created.discard()
    assert (created.path / part).exists()


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_resumed_run_is_never_discarded(here):
    run_folder.create(resolved(), here / "mine", NAME)
    before = content(here)
    created = run_folder.open_existing(here / "mine")
    assert created.path == here / "mine"
    assert not created.discard()
    assert content(here) == before


def test_an_unwritable_log_hides_no_error(here):
    run_folder.append_log(here / "deleted", "error: it broke")
    assert names(here) == []


def test_the_settings_of_a_resumed_run_are_replaced_atomically(here):
    created = run_folder.create(resolved(), here / "mine", NAME).path
    run_folder.rewrite_settings(Storage(created), resolved(lr="3e-4"))
    assert "  lr: 3e-4" in (created / "settings.yaml").read_text()
    assert json.loads((created / "origins.json").read_text())["optim.lr"]["value"] == 3e-4
    assert names(created) == ["log.txt", "origins.json", "settings.yaml"]


def test_settings_that_cannot_be_replaced_stay_as_they_were(here):
    created = run_folder.create(resolved(), here / "mine", NAME).path
    before = (created / "settings.yaml").read_text()
    (created / ".settings.yaml.new").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*settings\.yaml"):
        run_folder.rewrite_settings(Storage(created), resolved(lr="3e-4"))
    assert (created / "settings.yaml").read_text() == before


def test_a_fork_that_trained_nothing_is_discarded(here):
    def fill(folder):
        (folder / "metrics.jsonl").write_text("{}\n")

    created = run_folder.create(resolved(), here / "mine", NAME, fill)
    assert created.discard()
    assert names(here) == []
    created = run_folder.create(resolved(), here / "mine", NAME, fill)
    (created.path / "metrics.jsonl").write_text("{}\n{}\n")
    assert not created.discard()
