"""The course of a run around ranks that only say how they ended, by a clock that only counts."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.continual import ledger
from launcher.continual.course import Course
from launcher.continual.told import Told
from launcher.resume.resume_point import Resume
from launcher.run import failures
from launcher.run.job_spec import Job
from tests.launcher.given import resolved
from tests.launcher.runs import begun, saved
from training.checkpoint import retention

STEPS = 10
"""Steps of each training."""


class Clock:
    """Waits in no time, and lets happen what is to happen meanwhile."""

    def __init__(self, happens):
        self.signals: set[int] = set()
        self._now, self._happens = 0.0, dict(happens)

    def now(self):
        return self._now

    def wall(self):
        return 5000.0 + self._now

    def wait(self, seconds):
        self._now += max(seconds, 0.01)
        for at in [at for at in self._happens if at <= self._now]:
            self._happens.pop(at)()
        assert self._now < 10_000, "it waits without end"

    def listening(self):
        return nullcontext()

    def breaking(self):
        return nullcontext()


class Ranks:
    """Trains by saving an empty checkpoint; what is in `instead` happens in place of it."""

    def __init__(self, settings):
        self.jobs: list[Job] = []
        self.lessons: list[tuple[int, list[str]]] = []
        """The number of each lesson, and the files of what it learns."""
        self.instead: dict[int, object] = {}
        self._settings = settings

    def __call__(self, job, signals):
        self.jobs.append(job)
        self.lessons.append((job.lesson.number, files_of(job)))
        ending = self.instead.pop(len(self.jobs), None)
        if callable(ending):
            ending = ending(signals)
        if ending is not None:
            return ending
        if job.resume is not None and job.resume.step is not None:
            retention.set_aside(job.folder, job.resume.step)
        steps = STEPS * (job.lesson.number + 1)
        saved(job.folder, steps, self._settings)
        number = job.lesson.number
        learnt = {"number": number, "metric": "m", "old": {}, "new": {}} if number else None
        outcome = {"status": "completed", "exit_code": 0, "steps": steps, "experience": learnt}
        (job.folder / "result.json").write_text(json.dumps(outcome))
        return failures.ended(outcome, 0)


def files_of(job) -> list[str]:
    return sorted(path.name for path in job.lesson.parts[-1].data.iterdir())


def add(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(f"text of {name}")
        os.utime(folder / name, (1000, 1000))


@pytest.fixture
def start(tmp_path):
    """Starts or goes on with a run in `run` that watches `data`."""
    data = tmp_path / "data"
    data.mkdir()
    add(data, "a.txt")

    def run(*sets, happens=(), resume=None, is_learnt=False, ranks=None, clock=None, refetch=None):
        told = resolved(
            *("continual.enabled=true", "continual.check_every_s=1", "continual.settle_s=2"),
            *sets,
            data=str(data),
        )
        folder = tmp_path / "run"
        if not folder.exists():
            begun(folder, told)
        clock = clock or Clock(happens)
        ranks = ranks or Ranks(told)
        job = Job(told, folder, False, resume)
        course = Course(job, ranks, Told(folder, False), clock, is_learnt, refetch)
        return course.run(), ranks, clock

    run.data, run.folder = data, tmp_path / "run"
    return run


def states(start) -> list[str]:
    return [one.state for one in ledger.load(start.folder).experiences]


def events(start, kind: str) -> list[dict]:
    text = (start.folder / "events.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    return [line["facts"] for line in found if line["kind"] == kind]


def test_the_first_data_is_learnt_and_then_what_comes_until_it_is_quiet(start):
    ending, ranks, clock = start(
        "continual.quiet_s=60",
        happens={
            20: lambda: add(start.data, "b.txt"),
            50: lambda: add(start.data, "c.txt", "d.txt"),
        },
    )
    assert ranks.lessons == [(0, ["a.txt"]), (1, ["b.txt"]), (2, ["c.txt", "d.txt"])]
    assert [job.resume for job in ranks.jobs] == [None, *[Resume(start.folder)] * 2]
    assert [len(job.lesson.parts) for job in ranks.jobs] == [1, 2, 3]
    assert (ending.exit_code, ending.outcome["reason"]) == (0, "no new file came for 60 s")
    assert 110 <= clock.now() <= 115
    assert states(start) == ["learnt"] * 3
    result = json.loads((start.folder / "result.json").read_text())
    assert [one["number"] for one in result["experiences"]] == [1, 2]
    assert [one.begun_at for one in ledger.load(start.folder).experiences] == [0, 10, 20]


def test_the_hours_end_a_wait_as_completed(start):
    ending, _, clock = start("continual.max_hours=0.5")
    assert (ending.exit_code, ending.outcome["status"]) == (0, "completed")
    assert ending.outcome["reason"] == "0.5 hours have passed: --max-hours"
    assert clock.now() == pytest.approx(1800)


def test_the_ranks_know_of_the_hours_and_an_experience_that_they_cut_short_goes_on(start):
    told = resolved("continual.enabled=true", data=str(start.data))
    ranks = Ranks(told)
    stopped = {"status": "stopped", "exit_code": 75, "steps": 15}
    clock = Clock({5: lambda: add(start.data, "b.txt")})

    def cut_short(signals):
        clock.wait(3600)
        return failures.ended(stopped, 0)

    ranks.instead[2] = cut_short
    ending, _, _ = start("continual.max_hours=1", ranks=ranks, clock=clock)
    assert ranks.jobs[1].lesson.ends_at == 5000 + 3600
    assert (ending.exit_code, ending.outcome["status"]) == (0, "stopped")
    assert states(start) == ["learnt", "training"]
    again, ranks, _ = start("continual.quiet_s=5", resume=Resume(start.folder))
    assert [number for number, _ in ranks.lessons] == [1]
    assert states(start) == ["learnt", "learnt"] and again.exit_code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_a_wait(start, number, code):
    clock = Clock({7: lambda: clock.signals.add(number)})
    ending, _, _ = start(clock=clock)
    assert (ending.exit_code, ending.outcome["status"]) == (code, "stopped")


def test_a_signal_that_came_as_the_ranks_ended_is_not_forgotten(start):
    told = resolved("continual.enabled=true", data=str(start.data))
    ranks = Ranks(told)
    ranks.instead[1] = lambda signals: signals.add(signal.SIGTERM)
    ending, ranks, _ = start(ranks=ranks)
    assert ending.exit_code == 75
    assert states(start) == ["learnt"]


def test_an_experience_that_cannot_be_learnt_waits_for_more_files_and_ends_nothing(start):
    told = resolved("continual.enabled=true", data=str(start.data))
    ranks = Ranks(told)
    fault = SettingsError([Diagnostic("val would be empty")])
    ranks.instead[2] = failures.failed(fault, 0)
    ending, ranks, _ = start(
        "continual.quiet_s=30",
        happens={5: lambda: add(start.data, "b.txt"), 20: lambda: add(start.data, "c.txt")},
        ranks=ranks,
    )
    assert ranks.lessons[2] == (2, ["b.txt", "c.txt"])
    assert states(start) == ["learnt", "refused", "learnt"]
    assert events(start, "experience_postponed")[0]["reason"] == "val would be empty"
    assert ending.exit_code == 0
    # What the refused one had taken is no part of what is replayed.
    assert [part.data.parent.name for part in ranks.jobs[2].lesson.parts] == ["0000", "0002"]


def test_a_fault_of_the_program_ends_the_run_and_the_experience_goes_on_later(start):
    told = resolved("continual.enabled=true", data=str(start.data))
    ranks = Ranks(told)
    ranks.instead[2] = failures.died(0, "killed by SIGKILL", "")
    ending, _, _ = start(happens={5: lambda: add(start.data, "b.txt")}, ranks=ranks)
    assert ending.exit_code == 1
    assert states(start) == ["learnt", "training"]
    _, ranks, _ = start("continual.quiet_s=5", resume=Resume(start.folder))
    assert ranks.lessons == [(1, ["b.txt"])]


def test_wrong_first_data_ends_the_run(start):
    told = resolved("continual.enabled=true", data=str(start.data))
    ranks = Ranks(told)
    ranks.instead[1] = failures.failed(SettingsError([Diagnostic("nothing to learn")]), 0)
    assert start(ranks=ranks)[0].exit_code == 2


def test_a_folder_without_a_file_is_nothing_to_begin_with(start):
    (start.data / "a.txt").unlink()
    ending, ranks, _ = start()
    assert ending.exit_code == 2
    assert "holds no file yet" in ending.text
    assert ranks.jobs == []


def test_a_completed_run_that_did_not_watch_learns_what_came_since_it_began(start):
    told = resolved("continual.enabled=true", data=str(start.data))
    begun(start.folder, told)
    saved(start.folder, 10, told)
    first = {"time": "1970-01-01T00:30:00.000Z", "kind": "started", "step": 0, "facts": {}}
    (start.folder / "events.jsonl").write_text(json.dumps(first) + "\n")
    (start.data / "b.txt").write_text("came later")
    _, ranks, _ = start("continual.quiet_s=9", resume=Resume(start.folder), is_learnt=True)
    assert ranks.lessons == [(1, ["b.txt"])]
    assert [sorted(one.files) for one in ledger.load(start.folder).experiences] == [
        ["a.txt"],
        ["b.txt"],
    ]


def test_a_watch_that_is_switched_off_learns_the_experience_under_way_and_ends(start):
    told = resolved("continual.enabled=true", data=str(start.data))
    ranks = Ranks(told)
    ranks.instead[2] = failures.died(0, "killed by SIGKILL", "")
    start(happens={5: lambda: add(start.data, "b.txt")}, ranks=ranks)
    add(start.data, "c.txt")
    ending, ranks, clock = start("continual.enabled=false", resume=Resume(start.folder))
    assert ranks.lessons == [(1, ["b.txt"])]
    assert (ending.exit_code, clock.now()) == (0, 0.0)


def test_an_experience_whose_files_changed_meanwhile_is_put_off(start):
    told = resolved("continual.enabled=true", data=str(start.data))
    ranks = Ranks(told)
    ranks.instead[2] = failures.died(0, "killed by SIGKILL", "")
    start(happens={5: lambda: add(start.data, "b.txt")}, ranks=ranks)
    (start.data / "b.txt").write_text("another text, and a longer one")
    _, ranks, _ = start("continual.quiet_s=9", resume=Resume(start.folder))
    assert ranks.lessons == [(2, ["b.txt"])]
    assert states(start) == ["learnt", "refused", "learnt"]
    assert events(start, "experience_postponed")[0]["reason"] == "b.txt has changed or gone"


def test_a_part_whose_files_are_gone_is_not_replayed(start):
    _, ranks, _ = start(
        "continual.quiet_s=30",
        happens={
            5: lambda: add(start.data, "b.txt"),
            20: lambda: ((start.data / "b.txt").unlink(), add(start.data, "c.txt")),
        },
    )
    assert [part.data.parent.name for part in ranks.jobs[2].lesson.parts] == ["0000", "0002"]


def test_copies_are_replayed_whatever_becomes_of_the_files(start):
    _, ranks, _ = start(
        *("continual.quiet_s=30", "continual.hold=copy"),
        happens={
            5: lambda: add(start.data, "b.txt"),
            20: lambda: ((start.data / "b.txt").unlink(), add(start.data, "c.txt")),
        },
    )
    assert [part.data.parent.name for part in ranks.jobs[2].lesson.parts] == [
        "0000",
        "0001",
        "0002",
    ]


def test_what_an_experience_learns_by_stays_as_it_began(start):
    told = resolved("continual.enabled=true", data=str(start.data))
    ranks = Ranks(told)
    ranks.instead[2] = failures.died(0, "killed by SIGKILL", "")
    start("continual.replay=0.25", happens={5: lambda: add(start.data, "b.txt")}, ranks=ranks)
    _, ranks, _ = start(
        *("continual.quiet_s=9", "continual.replay=0.75"), resume=Resume(start.folder)
    )
    assert ranks.jobs[0].lesson.how["replay"] == 0.25


def test_going_on_from_an_earlier_step_unlearns_what_came_after(start):
    start("continual.quiet_s=9", happens={5: lambda: add(start.data, "b.txt")})
    _, ranks, _ = start("continual.quiet_s=9", resume=Resume(start.folder, step=10))
    assert ranks.lessons == [(1, ["b.txt"])]
    assert ranks.jobs[0].resume == Resume(start.folder, step=10)


def test_files_are_fetched_again_on_a_period_and_a_break_is_no_end(start):
    asked = []

    def refetch():
        asked.append(clock.now())
        if len(asked) == 2:
            raise KeyboardInterrupt
        if len(asked) == 3:
            add(start.data, "b.txt")

    clock = Clock({})
    sets = ("continual.refetch_every_s=100", "continual.quiet_s=450", "download.fetch=true")
    files = "download.files=[https://example.org/b.txt]"
    _, ranks, _ = start(*sets, files, clock=clock, refetch=refetch)
    assert [round(at, -1) for at in asked[:4]] == [100, 200, 300, 400]
    assert ranks.lessons == [(0, ["a.txt"]), (1, ["b.txt"])]


def test_a_changed_file_is_learnt_anew_where_that_is_wanted(start):
    def change():
        (start.data / "b.txt").write_text("another text, and a longer one")

    _, ranks, _ = start(
        *("continual.quiet_s=30", "continual.on_change=learn", "continual.hold=copy"),
        happens={5: lambda: add(start.data, "b.txt"), 20: change},
    )
    assert ranks.lessons == [(0, ["a.txt"]), (1, ["b.txt"]), (2, ["b.txt"])]
    first, second = (part.data / "b.txt" for part in ranks.jobs[2].lesson.parts[1:])
    assert (first.read_text(), second.read_text()) == (
        "text of b.txt",
        "another text, and a longer one",
    )
