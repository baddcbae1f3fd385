"""The run folder: its name, its files, and its removal if nothing was trained."""

import shutil
import threading
from contextlib import suppress
from functools import partial

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.run_folder import RunFolder
from tests.launcher.given import errors_of, resolved
from tests.launcher.runs import trained
from tests.training.checkpoint.killed import killed_at

NAME = "language-tiny-fast-zero2-20250131-142501"


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def created_together(out, starts=8):
    """The folders of starts at the same instant, without the refused ones."""
    created = []
    together = threading.Barrier(starts)
    settings = resolved()

    def start():
        together.wait()
        with suppress(SettingsError):
            created.append(run_folder.create(settings, out, NAME))  # held: it is starting

    threads = [threading.Thread(target=start) for _ in range(starts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [folder.path for folder in created]


def test_starts_at_the_same_instant_never_share_a_folder(here):
    assert {path.name for path in created_together(None)} == {
        *(NAME, *(f"{NAME}-{number}" for number in range(2, 9)))
    }


@pytest.mark.parametrize("exists", [True, False])
def test_one_of_the_starts_into_one_folder_gets_it(here, exists):
    if exists:
        (here / "mine").mkdir()
    assert created_together(here / "mine") == [here / "mine"]
    assert names(here / "mine") == ["log.txt", "origins.json", "settings.yaml"]


LEFT_BY_JOBS = [
    *(f"slurm/{name}" for name in ("job.sbatch", "log/12.out", "next", "crashes", "saved")),
    *("slurm/generations.jsonl", "slurm/outcome.12.0", ".lock"),
    *(".settings.yaml.0011aabb", ".origins.json.0011aabb"),
]
"""Files that a job, or a start that was killed, leaves in a folder without a run."""


def write(path, text="gearshift_job"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_folder_without_files_of_the_user_is_used(here):
    for name in LEFT_BY_JOBS:
        write(here / "mine" / name)
    created = run_folder.create(resolved(), here / "mine", NAME)
    assert created.path == here / "mine"
    assert {"log.txt", "origins.json", "settings.yaml"} < {*names(created.path)}


@pytest.mark.parametrize(
    "name",
    [
        *("best", "settings.yaml", "checkpoints/mine", "notes.txt", ".hidden", "slurm"),
        *("slurm/mine.sh", "slurm/job.sbatch", None),
    ],
)
def test_a_folder_with_a_file_of_the_user_or_a_run_is_refused_and_stays_as_it_was(here, name):
    if name is None:
        trained(here / "mine", resolved(), 10)
    else:
        write(here / "mine" / name, "mine")
    before = content(here)
    [error] = errors_of(run_folder.create, resolved(), here / "mine", NAME)
    assert error.where == f"--out {here}/mine" and ("resume" in (error.fix or "")) == (name is None)
    assert content(here) == before


def test_a_start_that_was_killed_leaves_an_unused_folder_or_a_run(here):
    create = partial(run_folder.create, resolved(), here / "mine", NAME)
    found = []
    operation = 1
    while killed_at(operation, create):
        found.append(run_folder.is_run_folder(here / "mine"))
        if found[-1]:
            assert resolved(model=None, configs=[here / "mine" / "settings.yaml"])
        elif (here / "mine").exists():
            assert run_folder.foreign_name(here / "mine") is None
        shutil.rmtree(here / "mine", ignore_errors=True)
        operation += 1
    assert found == sorted(found) and set(found) == {False, True}


def test_a_resumed_run_loses_the_files_of_killed_starts_but_not_what_makes_it_a_run(here):
    folder = run_folder.create(resolved(), here / "mine", NAME).path
    before = content(folder)
    for name in (".settings.yaml.0123abcd", ".origins.json.0123abcd", ".lock.0123abcd"):
        (folder / name).touch()
    run_folder.remove_abandoned(folder)
    assert content(folder) == before
    (folder / "origins.json").rename(folder / ".origins.json.0123abcd")
    run_folder.remove_abandoned(folder)
    assert run_folder.is_run_folder(folder)


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_trained_or_resumed_run_is_never_discarded(here):
    for part in ("metrics.jsonl", "checkpoints/step-00000001"):
        created = run_folder.create(resolved(), None, NAME)
        (created.path / part).parent.mkdir(exist_ok=True)
        (created.path / part).write_text("{}\n")
        assert not created.discard() and (created.path / part).exists()
    run_folder.create(resolved(), here / "mine", NAME)
    before = content(here)
    assert not RunFolder(here / "mine", is_resumed=True).discard()
    assert content(here) == before


def test_a_run_that_trained_nothing_is_discarded_with_what_it_copied(here):
    created = run_folder.create(
        resolved(), here / "mine", NAME, lambda folder: (folder / "split.json").touch()
    )
    assert created.discard()
    run_folder.append_log(here / "mine", "error: it broke")  # too late for a log
    assert names(here) == []


def test_a_folder_that_was_there_keeps_the_files_of_its_job_only(here):
    write(here / "mine/slurm/job.sbatch")
    created = run_folder.create(resolved(), here / "mine", NAME)
    (created.path / ".lock").touch()
    assert created.discard()
    assert names(here) == ["mine", "mine/slurm", "mine/slurm/job.sbatch"]
