"""A run in this process from its arguments to its last line, with a few lines as training."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from gearshift.launcher.base.diagnostics import Diagnostic
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.run import execute
from gearshift.launcher.run.execute import execute_run, last_line
from gearshift.launcher.run.prepare import prepare_run, threads
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.checkpoint_search import copy_run
from gearshift.models.base import DataError
from gearshift.training.callbacks.base import Outcome
from tests.launcher.given import errors_of, resolved, set_torchrun
from tests.launcher.runs import ended, trained

TINY = CliArgs(model="language:tiny", options={"engine.nproc": ("--nproc", "1")})


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory, and an environment that a run may change."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def train(monkeypatch):
    """Executes a prepared run with a function as the work of a rank: its end, and the texts shown."""

    def train_by(work, ready):
        monkeypatch.setattr(execute, "worker", lambda: work)
        shown = []
        end = execute_run(ready, True, shown.append)
        return end, [each.text for each in shown]

    return train_by


@pytest.fixture
def run(train):
    """Runs the tiny run with the given work."""
    return lambda work, out=None: train(work, prepare_run(TINY, out))


def ends(code, reason="as it was"):
    """Work that trains a step and ends with `code`."""

    def work(job):
        (job.folder / "metrics.jsonl").write_text('{"kind": "train"}\n')
        status = {0: "completed", 1: "failed"}.get(code, "stopped")
        return Outcome(status, reason, code, 1, 1.0, 0.1, None, None)

    return work


def breaks(error):
    """Work that raises `error` before a step is taken."""

    def work(job):
        raise error

    return work


def test_a_failed_run_names_its_log_which_has_the_traceback(run):
    end, reports = run(ends(1, "the loss of step 1 is not finite"))
    assert (end.exit_code, reports) == (1, ["error: the loss of step 1 is not finite"])
    assert last_line(end).endswith("log.txt")
    assert "the loss of step 1" in (end.folder / "log.txt").read_text()
    end, _ = run(breaks(ValueError("odd")))
    assert end.exit_code == 1
    assert "Traceback" in (end.folder / "log.txt").read_text()


@pytest.mark.parametrize("error", [DataError("x is empty"), KeyboardInterrupt()])
def test_wrong_data_or_an_interrupt_before_the_first_step_leaves_nothing_behind(run, here, error):
    end, (text,) = run(breaks(error))
    code, start = (130, "interrupted") if isinstance(error, KeyboardInterrupt) else (2, "error: ")
    assert (end.exit_code, end.folder) == (code, None)
    assert text.startswith(start)
    assert list(here.iterdir()) == []


def test_a_signal_before_the_first_step_asks_to_be_run_again(run, here):
    def work(job):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal should have ended this")

    before = signal.getsignal(signal.SIGTERM)
    end, (text,) = run(work)
    assert end.exit_code == 75
    assert "SIGTERM" in text
    assert signal.getsignal(signal.SIGTERM) is before
    assert list(here.iterdir()) == []


def shared(cores, ranks, is_continual=False, **engine):
    """The threads of each rank."""
    settings = SimpleNamespace(
        engine=SimpleNamespace(**{"threads": None, "max_restarts": 0, **engine})
    )
    return threads(settings, cores, ranks, is_continual)


def test_threads_are_the_requested_number_or_an_even_share(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [shared(16, 4), shared(2, 4), shared(7, 2)] == [4, 1, 3]
    # torchrun sets 1 unasked, which makes an optimizer on the CPU ten times slower.
    for variable, expected in (("8", 8), ("1", 4), ("many", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
        assert shared(16, 4) == expected
        assert shared(16, 4, threads=5) == 5


def test_a_run_in_the_process_of_the_launcher_keeps_the_default_of_torch(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert shared(16, 1) is None
    assert shared(16, 1, is_continual=True) == 16


@pytest.mark.parametrize("number", [0, 1])
def test_a_rank_of_torchrun_starts_no_processes_and_only_the_first_makes_a_folder(
    here, monkeypatch, train, number
):
    set_torchrun(monkeypatch, rank=number)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = []

    def work(job):
        seen.append((os.getpid(), job.folder, job.console, job.resolved.batching.world_size))
        return Outcome("completed", "", 0, 1, 1.0, 0.1, None, None)

    # Saved settings of a run on two processes: torchrun has started those already.
    (here / "mine.yaml").write_text("engine: {nproc: 2, name: ddp}\n")
    cli_args = CliArgs(model="language:tiny", configs=[here / "mine.yaml"])
    ready = prepare_run(cli_args, None)
    end, _ = train(work, ready)
    first = number == 0
    assert seen == [(os.getpid(), end.folder, first, 2)]
    assert (end.folder is not None) == first
    assert (here / "runs").exists() == first


def test_under_torchrun_restarts_are_refused_with_all_errors_and_nothing_is_created(
    here, monkeypatch
):
    set_torchrun(monkeypatch, rank=0)
    cli_args = CliArgs(
        model="language:tiny", options={"engine.max_restarts": ("--max-restarts", "2")}
    )
    unknown = Diagnostic("an unknown argument")
    first, second = errors_of(prepare_run, cli_args, Path("old"), [unknown])
    assert first.message == "an unknown argument"
    assert (second.key, second.where) == ("engine.max_restarts", "--max-restarts 2")
    assert list(here.iterdir()) == []


@pytest.fixture
def resume_run(here, train):
    """Runs a resumed run with the given work."""
    trained(Path("old"), resolved(nproc="1"), 10)

    def carry_out(work, out=None):
        return train(work, prepare_run(CliArgs(resume="old"), out))[0]

    return carry_out


@pytest.mark.parametrize(
    ("error", "out", "folder"),
    [
        (DataError("x is empty"), None, None),
        (KeyboardInterrupt(), None, Path("old")),
        (DataError("x is empty"), Path("new"), None),
    ],
)
def test_a_run_that_cannot_resume_stays_as_it_was_and_a_fork_is_removed(
    resume_run, here, error, out, folder
):
    before = {path: path.lstat().st_mtime_ns for path in here.rglob("*")}
    assert resume_run(breaks(error), out).folder == folder
    assert {path: path.lstat().st_mtime_ns for path in here.rglob("*")} == before


def test_all_files_are_copied_except_those_the_new_run_creates(here):
    old = ended(trained(here / "old", resolved(), 10), "stopped", 10)
    for name in ("metrics.jsonl", "events.jsonl", "split.json", "report.html", ".lock"):
        (old / name).write_text(name)
    (old / "log.txt").write_text("it began\n")
    for name in ("tokenizer/merges.txt", "export-hf/config.json", "predictions/x.json"):
        (old / name).parent.mkdir()
        (old / name).touch()
    (old / "notes").symlink_to("/nowhere")
    before = sorted(old.rglob("*"))
    forked = run_folder.create(
        resolved(lr="3e-4"), here / "new", "", lambda folder: copy_run(old, folder)
    )
    assert sorted(str(path.relative_to(forked.path)) for path in forked.path.rglob("*")) == [
        *("events.jsonl", "log.txt", "notes", "origins.json", "settings.yaml"),
        *("split.json", "tokenizer", "tokenizer/merges.txt"),
    ]
    assert (forked.path / "log.txt").read_text() == "it began\n"
    assert "lr: 3e-4" in (forked.path / "settings.yaml").read_text()
    assert (forked.path / "notes").is_symlink()
    assert sorted(old.rglob("*")) == before
