"""The loop of continual learning, with simulated ranks and a simulated clock."""

import json
import os
import shutil
import signal
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest
import yaml

from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError
from gearshift.launcher.continual.loop import ContinualLoop
from gearshift.launcher.run import run_end, run_error
from gearshift.launcher.run_folder import experiences
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.training.checkpoint import retention
from gearshift.training.storage import Storage
from tests.launcher.given import resolved
from tests.launcher.runs import begun, saved

STEPS = 10
"""Steps of each start."""


class Clock:
    """Waits without sleeping, and calls scheduled functions meanwhile."""

    def __init__(self, scheduled):
        self.signals = set()
        self.passed, self._scheduled = 0.0, dict(scheduled)

    def now(self):
        return time.time() + self.passed  # files have their change time from the real clock

    def wait(self, seconds):
        self.passed += max(seconds, 0.01)
        for at in [at for at in self._scheduled if at <= self.passed]:
            self._scheduled.pop(at)()
        assert self.passed < 10_000, "the loop never stops"

    def catching_signals(self):
        return nullcontext()


class Ranks:
    """Trains by saving an empty checkpoint; `instead` replaces the end of the n-th start."""

    def __init__(self, settings):
        self.jobs, self.instead = [], {}
        self.trained = []
        """Number and files of the experience of each start."""
        self._settings = settings

    def __call__(self, job):
        self.jobs.append(job)
        files = sorted(
            path.name for path in experiences.data_folder(job.experience.run, job.number).iterdir()
        )
        self.trained.append((job.number, files))
        end = self.instead.pop(len(self.jobs), None)
        if ending := end() if callable(end) else end:
            return ending
        if job.resume is not None and job.resume.step is not None:
            retention.set_aside(Storage(job.folder), job.resume.step)
        steps = STEPS * (job.number + 1)
        saved(job.folder, steps, self._settings)
        number = job.number
        forgetting = {"number": number, "metric": "m", "old": {}, "new": {}} if number else None
        outcome = {"status": "completed", "exit_code": 0, "steps": steps, "experience": forgetting}
        (job.folder / "result.json").write_text(json.dumps(outcome))
        return run_end.agreed(outcome, 0)


def add(folder, *names):
    for name in names:
        (folder / name).write_text(f"text of {name}")
        os.utime(folder / name, (1000, 1000))


@pytest.fixture
def start(tmp_path):
    """Starts or resumes a run in `run` that watches `data`."""
    data = tmp_path / "data"
    data.mkdir()
    add(data, "a.txt")

    def run(*sets, scheduled=(), resume=None, ranks=None, clock=None):
        settings = resolved(
            *("continual.enabled=true", "continual.check_every_s=1", "continual.settle_s=2"),
            *sets,
            data=str(data),
        )
        folder = tmp_path / "run"
        if not folder.exists():
            begun(folder, settings)
        clock = clock or Clock(scheduled)
        ranks = ranks or Ranks(settings)
        plan = RunPlan(settings, resume, folder=folder)
        return ContinualLoop(plan, ranks, clock).run(), ranks, clock

    run.data, run.folder = data, tmp_path / "run"
    run.settings = resolved("continual.enabled=true", data=str(data))
    return run


def states(start):
    return [experience.state for experience in experiences.load(start.folder).experiences]


def test_the_first_data_then_new_files_are_trained_on_until_quiet_s(start):
    ending, ranks, clock = start(
        *("continual.quiet_s=60", "optim.lr=0.01"),
        scheduled={
            20: lambda: add(start.data, "b.txt"),
            50: lambda: add(start.data, "c.txt", "d.txt"),
        },
    )
    assert ranks.trained == [(0, ["a.txt"]), (1, ["b.txt"]), (2, ["c.txt", "d.txt"])]
    assert [job.resume for job in ranks.jobs] == [None, *[ResumeRequest(start.folder)] * 2]
    assert [len(job.experience.numbers) for job in ranks.jobs] == [1, 2, 3]
    assert (ending.exit_code, ending.outcome["reason"]) == (0, "no new files for 60 s")
    assert 109 <= clock.passed <= 115
    assert states(start) == ["trained"] * 3
    result = json.loads((start.folder / "result.json").read_text())
    assert [experience["number"] for experience in result["experiences"]] == [1, 2]
    found = experiences.load(start.folder).experiences
    assert [experience.start_step for experience in found] == [0, 10, 20]
    # Its settings are in its folder with their origins.
    home = start.folder / "experiences" / "0001"
    assert yaml.safe_load((home / "settings.yaml").read_text())["optim"]["lr"] == 0.01 * 0.3
    assert (
        json.loads((home / "origins.json").read_text())["optim.lr"]["origin"]
        == "continual.lr_scale"
    )


def test_ranks_get_the_deadline_and_an_experience_stopped_by_it_is_resumed(start):
    ranks = Ranks(start.settings)
    stopped = {"status": "stopped", "exit_code": 75, "steps": 15}
    clock = Clock({5: lambda: add(start.data, "b.txt")})

    def cut_short():
        clock.wait(3600)
        return run_end.agreed(stopped, 0)

    ranks.instead[2] = cut_short
    ending, _, _ = start("train.time=1h", ranks=ranks, clock=clock)
    assert ranks.jobs[1].experience.deadline == pytest.approx(time.time() + 3600, abs=300)
    assert (ending.exit_code, ending.outcome["status"]) == (0, "stopped")
    assert states(start) == ["trained", "training"]
    again, ranks, _ = start("continual.quiet_s=5", resume=ResumeRequest(start.folder))
    assert [number for number, _ in ranks.trained] == [1]
    assert states(start) == ["trained", "trained"] and again.exit_code == 0


def test_a_signal_ends_a_wait_or_the_exit_of_the_ranks(start):
    for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        clock = Clock({7: lambda: clock.signals.add(number)})  # noqa: B023
        ending, _, _ = start(clock=clock)
        assert (ending.exit_code, ending.outcome["status"]) == (code, "stopped")
        shutil.rmtree(start.folder)
    ranks = Ranks(start.settings)
    done = {"status": "completed", "exit_code": 0, "steps": STEPS, "experience": None}
    ranks.instead[1] = replace(run_end.agreed(done, 0), signals=frozenset({signal.SIGTERM}))
    ending, _, _ = start(ranks=ranks)
    assert ending.exit_code == 75
    assert states(start) == ["trained"]


def test_an_experience_with_wrong_data_is_postponed_and_the_run_continues(start):
    ranks = Ranks(start.settings)
    error = SettingsError([Diagnostic("val would be empty")])
    ranks.instead[2] = run_error.of_error(error, 0)
    ending, ranks, _ = start(
        "continual.quiet_s=30",
        scheduled={
            5: lambda: add(start.data, "b.txt"),
            20: lambda: add(start.data, "c.txt"),
            40: lambda: ((start.data / "c.txt").unlink(), add(start.data, "d.txt")),
        },
        ranks=ranks,
    )
    assert ranks.trained[2:] == [(2, ["b.txt", "c.txt"]), (3, ["d.txt"])]
    assert states(start) == ["trained", "postponed", "trained", "trained"]
    assert '"reason": "val would be empty"' in (start.folder / "events.jsonl").read_text()
    assert ending.exit_code == 0
    # A postponed experience is not replayed, and neither is one whose files are gone.
    replayed = [list(job.experience.numbers) for job in ranks.jobs]
    assert replayed[2:] == [[0, 2], [0, 3]]


def test_resuming_from_an_earlier_step_drops_later_experiences(start):
    start("continual.quiet_s=9", scheduled={5: lambda: add(start.data, "b.txt")})
    _, ranks, _ = start("continual.quiet_s=9", resume=ResumeRequest(start.folder, step=10))
    assert ranks.trained == [(1, ["b.txt"])]
    assert ranks.jobs[0].resume == ResumeRequest(start.folder, step=10)
