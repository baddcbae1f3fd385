"""Files of cached choices: what gets a file of its own, and what damage does."""

from dataclasses import replace

import pytest

from launcher.plan import cache
from launcher.plan.target import Described
from models.common.data_files import CACHE_VARIABLE
from tests.launcher.given import LAPTOP, resolved


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path


def place(*sets, machine=LAPTOP, **options):
    return cache.place(resolved(*sets, **options), Described(machine))


def test_what_changes_a_plan_has_a_file_of_its_own(folder):
    data = folder / "mine.txt"
    data.write_text("one")
    path = f"data.path={data}"
    found = [place(), place("optim.lr=0.5"), place(machine=replace(LAPTOP, ram_bytes=1))]
    found.append(place(path))
    data.write_text("another")
    found.append(place(path))
    assert len(set(found)) == 5
    assert place(path) == found[-1]


def test_what_changes_no_plan_shares_one():
    assert place("track=[]") == place("track=[wandb]")
    assert place(engine="auto", nproc="2") == place(engine="oss", nproc="2")


def test_changed_code_of_this_program_plans_again(monkeypatch):
    before = place()
    monkeypatch.setattr(cache, "_changed", lambda: 1.0)
    assert place() != before


def test_a_custom_task_has_none():
    run = resolved()
    model = run.settings.model.model_copy(update={"family": "package.module:Mine"})
    custom = replace(run, settings=run.settings.model_copy(update={"model": model}))
    assert cache.place(custom, Described(LAPTOP)) is None
    assert cache.read(None) is None
    cache.write(None, {})


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_a_damaged_file_is_not_read(content, folder):
    file = folder / "a" / "b.json"
    cache.write(file, {"memory": 1})
    assert cache.read(file) == {"memory": 1}
    file.write_text(content)
    assert cache.read(file) is None


def test_a_folder_that_cannot_be_written_changes_nothing(folder):
    (folder / "file").touch()
    cache.write(folder / "file" / "b.json", {"memory": 1})
    assert cache.read(folder / "file" / "b.json") is None
