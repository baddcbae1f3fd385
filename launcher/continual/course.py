"""The course of a run that learns on: its data, then what comes, until it is told to end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.base import exit_codes
from launcher.base.diagnostics import Diagnostic, SettingsError, counted
from launcher.continual import folders, ledger, lesson, replay, watch
from launcher.continual.arrivals import Arrivals
from launcher.continual.clock import Clock
from launcher.continual.ledger import Experience, File, Ledger
from launcher.continual.stop_conditions import End, Ends
from launcher.continual.told import Told
from launcher.resume import find
from launcher.resume.resume_point import Resume
from launcher.run import failures
from launcher.run.failures import Report, Stopped
from launcher.run.job_spec import Job
from launcher.run_folder import lock
from training.storage import StorageError

Train = Callable[[Job, set[int]], Report]
"""Runs the ranks of a job to their end, and collects the signals that were handed on to them."""


class Course:
    """What this process does around the ranks, which live only while something is learnt."""

    def __init__(
        self,
        job: Job,
        train: Train,
        told: Told,
        clock: Clock,
        is_learnt: bool,
        refetch: Callable[[], None] | None = None,
    ) -> None:
        """`is_learnt`: the data that the run began with is learnt. `refetch` asks for newer files
        than were fetched; None: none were.
        """
        assert job.folder is not None, "the run folder was made"
        self._job, self._train, self._told, self._clock = job, train, told, clock
        self._settings = job.resolved.settings.continual
        self._folder: Path = job.folder
        self._source = Path(job.resolved.settings.data.path).expanduser()
        self._ends = Ends(self._settings, clock)
        self._resume = job.resume
        watched = self._settings
        self._arrivals = Arrivals(
            self._source, watched.settle_s, watched.min_files, watched.on_change == "learn"
        )
        self._refetch, self._fetched_at = refetch, clock.now()
        self._is_learnt, self._ledger = is_learnt, Ledger()

    def run(self) -> Report:
        """Learn what is there and what comes; the report of the end."""
        with self._clock.listening():
            try:
                return self._run()
            except (SettingsError, StorageError, KeyboardInterrupt, Stopped) as fault:
                return failures.failed(fault, 0)

    def _run(self) -> Report:
        self._ledger = self._first_ledger()
        if self._ledger.experiences:
            self._save(self._ledger)
        else:
            self._begin()
        while True:
            while (experience := self._ledger.under_way) is not None:
                if (ending := self._learn(experience)) is not None:
                    return ending
            self._told.account(self._ledger, {})
            end = End("all steps are taken") if not self._settings.enabled else self._wait()
            if end is not None:
                return self._ended(end)

    def _first_ledger(self) -> Ledger:
        """That of the run, as far as it goes on; empty where it begins."""
        told = self._job.resume
        begins_anew = told is not None and "data" in told.reset
        found = None if begins_anew else ledger.load(self._folder)
        if found is not None:
            return found if told is None or told.step is None else found.back_to(told.step)
        if begins_anew or told is None or self._step is None:
            return Ledger()
        return self._of_a_run_before()

    def _of_a_run_before(self) -> Ledger:
        """The ledger of a run that did not watch its folder until now: files since then are new."""
        began = self._told.began()
        there = {
            name: stamp
            for name, stamp in watch.files(self._source).items()
            if began is None or stamp.mtime_ns / 1e9 <= began
        }
        files = ledger.take(self._source, there)
        folders.lay(self._folder, 0, self._source, files, self._settings.hold)
        if not self._is_learnt:
            return Ledger([Experience(0, files, "training")])
        return Ledger([Experience(0, files, "learnt", ended_at=self._step)])

    def _begin(self) -> None:
        """Take the files that are there for the first data. Raises SettingsError."""
        while (files := self._arrivals.first(self._clock.now(), self._clock.wall())) is None:
            self._stop_at_once()
            self._clock.wait(min(self._settings.check_every_s, self._settings.settle_s))
        if not files:
            raise SettingsError([_empty(self._source)])
        self._save(Ledger([Experience(0, files)]))

    def _stop_at_once(self) -> None:
        """Nothing was learnt yet. Raises KeyboardInterrupt or Stopped where a signal came."""
        if signal.SIGINT in self._clock.signals:
            raise KeyboardInterrupt
        for number in self._clock.signals:
            raise Stopped(signal.Signals(number).name)

    def _learn(self, experience: Experience) -> Report | None:
        """Learn an experience to its end; a report where that ends the run."""
        if experience.state == "planned":
            experience = self._prepared(experience)
        if experience.number and (lost := self._lost(experience)):
            self._refuse(experience, lost)
            return None
        signals: set[int] = set()
        ending = self._train(self._told_to(experience), signals)
        self._clock.signals |= signals
        if experience.number and ending.kind == "words":
            self._refuse(experience, ending.text.removeprefix("error: "))
            return None
        outcome = ending.outcome or {}
        if outcome.get("status") == "completed":
            step, learnt = int(outcome["steps"]), outcome.get("experience")
            done = replace(experience, state="learnt", ended_at=step, learnt=learnt)
            self._save(self._ledger.with_(done))
            self._resume = None
            return None
        if ending.exit_code == exit_codes.RUN_AGAIN and self._ends.is_late and not signals:
            return self._ended(self._ends.hours)
        self._told.account(self._ledger, {})
        return ending

    def _prepared(self, experience: Experience) -> Experience:
        """Its folder is made, and what it replays is settled: parts whose files all stand."""
        names, hold = experience.files, self._settings.hold
        folders.lay(self._folder, experience.number, self._source, names, hold)
        numbers = []
        for old in self._ledger.learnt:
            if old.number and (lost := replay.lost(self._folder, old)):
                self._told.say(
                    f"experience {old.number} is not replayed: {lost} has changed or gone"
                )
            else:
                numbers.append(old.number)
        how = {**experience.how, replay.PARTS: numbers}
        experience = replace(experience, state="training", how=how)
        self._save(self._ledger.with_(experience))
        return experience

    def _lost(self, experience: Experience) -> str | None:
        """What keeps it from being learnt as it was planned; None: nothing."""
        numbers = (*experience.how.get(replay.PARTS, ()), experience.number)
        for one in self._ledger.experiences:
            if one.number in numbers and (lost := replay.lost(self._folder, one)):
                whose = "" if one.number == experience.number else f", of experience {one.number},"
                return f"{lost}{whose} has changed or gone"
        return None

    def _told_to(self, experience: Experience) -> Job:
        """What the ranks are told."""
        told = replay.lesson(self._folder, experience, self._ends.wall_at)
        return replace(self._job, lesson=told, resume=self._resume or self._goes_on())

    def _goes_on(self) -> Resume | None:
        return Resume(self._folder) if self._step is not None else None

    def _refuse(self, experience: Experience, reason: str) -> None:
        """Put an experience off; its files are tried again beside the next that come."""
        links = str(folders.part(self._folder, experience.number).data)
        reason = reason.replace(links, str(self._source))
        folders.clear(self._folder, experience.number)
        self._save(self._ledger.with_(replace(experience, state="refused", reason=reason)))
        first = reason.splitlines()[0]
        self._told.say(f"experience {experience.number} waits for more files: {first}")
        facts = {"number": experience.number, "files": list(experience.files), "reason": reason}
        self._told.event("experience_postponed", facts, self._step or 0)

    def _wait(self) -> End | None:
        """Wait until new files are complete, and plan the next experience; or until the end."""
        clock = self._clock
        with lock.hold(self._folder):
            self._told.say(f"learnt; looking for new files in {self._source}")
            self._told.event("waiting_for_data", {"folder": str(self._source)}, self._step or 0)
            since = clock.now()
            while (end := self._ends.why(news_at := self._news(since))) is None:
                self._fetch_again()
                files = self._arrivals.new(self._ledger, clock.now())
                for note in self._tell_notes():
                    self._told.say(note)
                if files:
                    self._plan(files)
                    return None
                clock.wait(self._pause(news_at))
        return end

    def _news(self, since: float) -> float:
        return max(since, self._arrivals.changed_at or since)

    def _fetch_again(self) -> None:
        """Ask for newer files where it is time; a signal breaks it off."""
        every, now = self._settings.refetch_every_s, self._clock.now()
        if self._refetch is None or every is None or now - self._fetched_at < every:
            return
        with suppress(KeyboardInterrupt), self._clock.breaking():
            self._refetch()
        self._fetched_at = self._clock.now()

    def _tell_notes(self) -> list[str]:
        notes = list(self._arrivals.notes)
        self._arrivals.notes.clear()
        return notes

    def _plan(self, files: dict[str, File]) -> None:
        number, step = self._ledger.next_number, self._step or 0
        how = lesson.how(self._settings)
        self._save(self._ledger.with_(Experience(number, files, begun_at=step, how=how)))
        named = ", ".join(list(files)[:3]) + (", …" if len(files) > 3 else "")
        self._told.say(f"experience {number}: {counted(len(files), 'new file')}: {named}")
        self._told.event("experience_planned", {"number": number, "files": list(files)}, step)

    def _pause(self, news_at: float) -> float:
        """How long to sleep: nothing that is to be done is overslept."""
        most, every = self._settings.check_every_s, self._settings.refetch_every_s
        if self._refetch is not None and every is not None:
            most = min(most, self._fetched_at + every - self._clock.now())
        return self._ends.pause(most, news_at)

    @property
    def _step(self) -> int | None:
        """The step that the run goes on from: the newest that is saved, or the one that was named.

        None: it begins.
        """
        if self._resume is not None and self._resume.step is not None:
            return self._resume.step
        newest = find.newest_step(self._folder)
        if newest is None and self._resume is not None:
            return find.newest_step(self._resume.source)
        return newest

    def _save(self, changed: Ledger) -> None:
        changed.save(self._folder)
        self._ledger = changed

    def _ended(self, end: End) -> Report:
        """The report of an end that no rank told of, which result.json and events tell, too."""
        under_way = self._ledger.under_way is not None
        status = "stopped" if end.exit_code or under_way else "completed"
        self._told.say(f"ended: {end.reason}")
        facts = {"status": status, "reason": end.reason, "exit_code": end.exit_code}
        self._told.event("stopped", facts, self._step or 0)
        self._told.account(self._ledger, {"status": status})
        outcome: dict[str, Any] = {**self._told.outcome(), **facts}
        return failures.ended(outcome, 0)


def _empty(folder: Path) -> Diagnostic:
    return Diagnostic(
        f"data.path '{folder}' holds no file yet, and a run begins with some",
        key="data.path",
        value=str(folder),
        allowed="a folder with data to begin with; what comes later is learnt later",
    )
