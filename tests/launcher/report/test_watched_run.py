"""A watched run is what its files and its lock say."""

import io
import json
from datetime import datetime, timezone

import pytest
from rich.cells import cell_len
from rich.console import Console

from gearshift.launcher.report.watched_run import WatchedRun, plain, screen
from gearshift.launcher.run_folder import lock, run_folder
from gearshift.training.callbacks.base import Outcome
from gearshift.training.logging.metrics import EventsWriter, MetricsWriter
from gearshift.training.logging.terminal import unwrapped
from gearshift.training.storage import Storage
from tests.launcher.given import resolved
from tests.launcher.runs import begun, ended
from tests.training.facts import evaluation, logged, step, train_plan


class Run:
    """A run that writes its files as the real one, a second after each other."""

    def __init__(self, folder):
        self.folder, self.seconds = folder, 1e9
        begun(folder, resolved("limits.ram=90"))
        self.usage = {}
        storage = Storage(folder)
        self.writers = [
            MetricsWriter(storage, lambda: self.usage),
            EventsWriter(storage, now=self.now),
        ]
        self.watched = WatchedRun(folder, now=lambda: self.seconds)

    def now(self):
        self.seconds += 1.0
        return datetime.fromtimestamp(self.seconds, timezone.utc)

    def call(self, name, *args):
        for writer in self.writers:
            getattr(writer, name)(*args)

    def train(self, *steps):
        for number in steps:
            self.call("step", step(number))
            self.call("logged", logged(number, step_time_s=0.5))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "mine")


def test_a_running_run_has_its_progress_and_its_memory(run):
    assert run.watched.snapshot().state == "not started"
    with lock.hold(run.folder):
        assert run.watched.snapshot().state == "starting"
        run.call("start", train_plan(save_every=40))
        run.usage = {"ram": 63.0}
        run.train(1, 10)
        found = run.watched.snapshot()
        assert (found.state, found.progress.step) == ("running", 10)
        # 90 steps of half a second
        assert found.progress.remaining_s == pytest.approx(45.0)
        run.call("evaluated", evaluation(10))
        run.train(20)
        found = run.watched.snapshot()
    assert found.progress.event == "step 10: evaluated val: loss 2.2500, the best so far"
    # 9.5 s, and 1.5 s of the evaluation
    assert found.progress.remaining_s == pytest.approx(80 * 11 / 19)
    _, progress, last = plain(found).splitlines()
    for part in ("20/100", "loss   2.5000", "300.0 MiB", "ram 63%", "ETA 46 s"):
        assert part in progress
    assert last.endswith(found.progress.event)


def test_a_resumed_run_is_shown_from_its_resume_point_and_without_lock_and_result_as_killed(run):
    run.call("start", train_plan())
    run.train(1, 10, 20)
    run.call("end", Outcome("stopped", "SIGTERM", 75, 20, 2.0, 9.0, None, None))
    ended(run.folder, "stopped", 20)
    assert run.watched.snapshot().state == "stopped"
    with lock.hold(run.folder):
        assert run.watched.snapshot().state == "starting"
        run.call("start", train_plan(first_step=20))
        assert run.watched.snapshot().progress.step == 20
        run.train(21, 30)
        found = run.watched.snapshot()
    assert (found.state, found.progress.step) == ("running", 30)
    assert found.progress.remaining_s == pytest.approx(35.0)
    (run.folder / run_folder.RESULT).unlink()
    assert run.watched.snapshot().state == "killed"


def test_several_runs_have_two_lines_each_and_one_its_view_and_none_wraps(run):
    run.call("start", train_plan())
    run.train(1, 10)
    found = run.watched.snapshot()
    for count, height in ((1, 6), (2, 4)):
        stream = io.StringIO()
        Console(file=stream, width=40).print(unwrapped(screen([found] * count)))
        lines = stream.getvalue().splitlines()
        assert max(map(cell_len, lines)) <= 40 and lines[0].startswith("killed  ")
        assert len(lines) <= height


def test_an_event_of_another_program_is_left_out(run):
    run.call("start", train_plan())
    run.train(1, 10)
    events = run.folder / run_folder.EVENTS
    line = {
        "time": "0001-01-01T00:00:00+23:00",
        "kind": "evaluated",
        "step": 10,
        "facts": {"metrics": {}},
    }
    for time in ("2026-01-01T00:00:00Z", line["time"]):
        with events.open("a") as file:
            file.write(json.dumps({**line, "time": time}) + "\n")
    assert run.watched.snapshot().progress.step == 10


@pytest.mark.parametrize("count", [1, 2])
def test_a_failed_run_shows_its_error_on_a_terminal(run, count):
    run.call("start", train_plan())
    run.train(1, 10)
    run.call("end", Outcome("failed", "ValueError: no\nsensor", 1, 10, 2.0, 9.0, None, None))
    ended(run.folder, "failed", 10, reason="ValueError: no\nsensor")
    found = run.watched.snapshot()
    stream = io.StringIO()
    Console(file=stream, width=80).print(unwrapped(screen([found] * count)))
    assert stream.getvalue().splitlines()[1].strip() == "ValueError: no sensor"
    assert plain(found).splitlines()[0].endswith("failed; ValueError: no sensor")
