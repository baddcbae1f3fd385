"""The loop of continual learning: wait for data, train on it as an experience, report."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.base import exit_codes
from launcher.base.diagnostics import SettingsError, counted
from launcher.base.signals import Stopped, handling
from launcher.config.feature_settings import Continual
from launcher.continual.arrivals import Arrivals, list_files
from launcher.run import execute, run_end
from launcher.run.experience import record_settings, recorded_settings, spec_of
from launcher.run.run_end import RunEnd
from launcher.run.supervisor import supervise
from launcher.run_folder import checkpoint_search, experiences, lock, run_folder
from launcher.run_folder.experiences import Experience, Ledger
from launcher.run_folder.file_records import record_files
from launcher.run_folder.reader import RunReader
from launcher.run_folder.run_plan import ResumeRequest, RunPlan
from training.callbacks.base import Outcome
from training.callbacks.preemption import heeded
from training.logging.events import append_event
from training.logging.printable import printable
from training.logging.strict_json import encode_bytes
from training.storage import Storage, StorageError, atomic_write, storage_errors

Train = Callable[[RunPlan], RunEnd]
"""Run the ranks to their end."""


def train_continually(plan: RunPlan, show: execute.Show) -> RunEnd:
    """Train on the data of `plan`, then on new files; gives the end.

    Ranks run only while there is something to train on. An experience that cannot be trained on is
    postponed with a message. Touches the disk.
    """
    assert plan.folder is not None, "the run folder exists"
    shown: list[RunEnd] = []

    def train(plan: RunPlan) -> RunEnd:
        def show_once(end: RunEnd) -> None:
            is_first = plan.experience is None or not plan.experience.number
            if is_first or end.kind != "invalid input":
                shown.append(end)
                show(end)

        return execute.repeat(plan, supervise, show_once)

    reporter = Reporter(plan.folder, plan.console)
    end = ContinualLoop(replace(plan, threads=plan.threads or 1), train, reporter, Clock()).run()
    if end.kind != "ended" and end not in shown:
        show(end)
    return end


class ContinualLoop:
    """Watches a folder, and starts the ranks of a run for each experience."""

    def __init__(self, plan: RunPlan, train: Train, reporter: Reporter, clock: Clock) -> None:
        assert plan.folder is not None, "the run folder exists"
        self._plan, self._train, self._reporter, self._clock = plan, train, reporter, clock
        settings = plan.resolved.settings
        self._settings = settings.continual
        self._folder: Path = plan.folder
        self._source = Path(settings.data.path).expanduser()
        self._stops = StopConditions(self._settings, clock)
        self._resume = plan.resume
        self._arrivals = Arrivals(self._source, self._settings.settle_s, self._settings.min_files)
        self._ledger = Ledger()

    def run(self) -> RunEnd:
        """Train on all experiences until a stop condition; gives the report of the end."""
        with self._clock.catching_signals():
            try:
                return self._run()
            except (SettingsError, StorageError, KeyboardInterrupt, Stopped) as error:
                return run_end.of_error(error, 0)

    def _run(self) -> RunEnd:
        self._ledger = self._first_ledger()
        if self._ledger.experiences:
            self._save(self._ledger)
        else:
            self._record_first_data()
        while True:
            while (experience := self._ledger.unfinished) is not None:
                if (ending := self._train_experience(experience)) is not None:
                    return ending
            self._reporter.update_result(self._ledger, {})
            stop = EndOfWait("finished") if not self._settings.enabled else self._wait()
            if stop is not None:
                return self._stopped(stop)

    def _first_ledger(self) -> Ledger:
        """The ledger at the resume point; empty if the run starts."""
        resume = self._plan.resume
        restarts_data = resume is not None and "data" in resume.reset
        ledger = None if restarts_data else experiences.load(self._folder)
        if ledger is not None:
            step = None if resume is None else resume.step
            return ledger if step is None else ledger.rewound_to(step)
        if restarts_data or resume is None or self._step is None:
            return Ledger()
        # The run was not continual until now: files newer than it are new.
        started = self._reporter.started_at()
        there = {
            name: stamp
            for name, stamp in list_files(self._source).items()
            if started is None or stamp.mtime_ns / 1e9 <= started
        }
        files = record_files(self._source, there)
        make_folder(self._folder, 0, self._source, files)
        if not self._plan.is_trained:
            return Ledger([Experience(0, files, "training")])
        return Ledger([Experience(0, files, "trained", end_step=self._step)])

    def _record_first_data(self) -> None:
        """Record the files of the first data once they are complete. Raises SettingsError."""
        clock = self._clock
        while (files := self._arrivals.first_files(clock.now())) is None:
            if signal.SIGINT in clock.signals:
                raise KeyboardInterrupt
            if clock.signals:
                raise Stopped(signal.Signals(next(iter(clock.signals))).name)
            clock.wait(min(self._settings.check_every_s, self._settings.settle_s))
        if not files:
            raise SettingsError.of(
                f"data.path '{self._source}' contains no files: training needs data to start with",
                key="data.path",
                value=str(self._source),
                allowed="a folder with files; more may arrive later",
            )
        self._save(Ledger([Experience(0, files)]))

    def _train_experience(self, experience: Experience) -> RunEnd | None:
        """Train on an experience; a report if that ends the run."""
        if experience.state == "planned":
            experience = self._prepared(experience)
        numbers = (*experience.replayed, experience.number) if experience.number else ()
        for needed in (e for e in self._ledger.experiences if e.number in numbers):
            if missing := experiences.missing_file(self._folder, needed):
                is_own = needed.number == experience.number
                of = "" if is_own else f" of experience {needed.number}"
                self._postpone(experience, f"{missing}{of} changed or is gone")
                return None
        spec = spec_of(self._folder, experience, self._stops.deadline)
        if experience.number:
            record_settings(self._plan.resolved, spec)
        resume = self._resume or (ResumeRequest(self._folder) if self._step is not None else None)
        ending = self._train(replace(self._plan, experience=spec, resume=resume))
        self._clock.signals |= ending.signals
        if experience.number and ending.kind == "invalid input":
            self._postpone(experience, ending.text.removeprefix("error: "))
            return None
        outcome = ending.outcome or {}
        if outcome.get("status") == "completed":
            step, forgetting = int(outcome["steps"]), outcome.get("experience")
            done = replace(experience, state="trained", end_step=step, forgetting=forgetting)
            self._save(self._ledger.updated(done))
            self._resume = None
            return None
        if ending.exit_code == exit_codes.RUN_AGAIN and self._stops.deadline_passed and not ending.signals:
            return self._stopped(self._stops.time_limit)
        self._reporter.update_result(self._ledger, {})
        return ending

    def _prepared(self, experience: Experience) -> Experience:
        """`experience` with its folder made, and the earlier ones that are whole to replay."""
        make_folder(self._folder, experience.number, self._source, experience.files)
        replayed = []
        for old in self._ledger.trained:
            missing = experiences.missing_file(self._folder, old) if old.number else None
            if missing is None:
                replayed.append(old.number)
                continue
            line = f"experience {old.number} is not replayed: {missing} changed or is gone"
            self._reporter.print(line)
        experience = replace(experience, state="training", replayed=tuple(replayed))
        self._save(self._ledger.updated(experience))
        return experience

    def _postpone(self, experience: Experience, reason: str) -> None:
        """Postpone an experience; its files are tried again with the next new ones."""
        links = str(experiences.folder_of(self._folder, experience.number).data)
        reason = reason.replace(links, str(self._source))
        remove_folder(self._folder, experience.number)
        self._save(self._ledger.updated(replace(experience, state="postponed", reason=reason)))
        line = f"experience {experience.number} postponed until more files arrive"
        self._reporter.print(f"{line}: {reason.splitlines()[0]}")
        facts = {"number": experience.number, "files": list(experience.files), "reason": reason}
        self._reporter.event("experience_postponed", facts, self._step or 0)

    def _wait(self) -> EndOfWait | None:
        """Wait for new files and plan the next experience; or until a stop condition."""
        clock = self._clock
        with lock.hold(self._folder):
            self._reporter.print(f"waiting for new files in {self._source}")
            facts = {"folder": str(self._source)}
            self._reporter.event("waiting_for_data", facts, self._step or 0)
            since = clock.now()
            while True:
                last_change = max(since, self._arrivals.changed_at or since)
                if (stop := self._stops.check(last_change)) is not None:
                    return stop
                files = self._arrivals.new_files(self._ledger, clock.now())
                for note in self._arrivals.notes:
                    self._reporter.print(note)
                self._arrivals.notes.clear()
                if files:
                    number, settings = self._ledger.next_number, recorded_settings(self._settings)
                    new = Experience(number, files, start_step=self._step or 0, settings=settings)
                    self._save(self._ledger.updated(new))
                    names = ", ".join(list(files)[:3]) + (", …" if len(files) > 3 else "")
                    count = counted(len(files), "new file")
                    self._reporter.print(f"experience {number}: {count}: {names}")
                    planned = {"number": number, "files": list(files)}
                    self._reporter.event("experience_planned", planned, new.start_step)
                    return None
                clock.wait(self._stops.wait_s(self._settings.check_every_s, last_change))

    @property
    def _step(self) -> int | None:
        """The step to resume from: the newest saved, or the requested one; None at the start."""
        if self._resume is not None and self._resume.step is not None:
            return self._resume.step
        newest = checkpoint_search.newest_step(self._folder)
        if newest is None and self._resume is not None:
            return checkpoint_search.newest_step(self._resume.source)
        return newest

    def _save(self, ledger: Ledger) -> None:
        ledger.save(self._folder)
        self._ledger = ledger

    def _stopped(self, stop: EndOfWait) -> RunEnd:
        """The report of an end outside of the ranks; also in result.json and the events."""
        unfinished = self._ledger.unfinished is not None
        status = "stopped" if stop.exit_code or unfinished else "completed"
        self._reporter.print(f"stopped: {stop.reason}")
        facts = {"status": status, "reason": stop.reason, "exit_code": stop.exit_code}
        self._reporter.event("stopped", facts, self._step or 0)
        self._reporter.update_result(self._ledger, {"status": status})
        outcome: dict[str, Any] = {**self._reporter.outcome(), **facts}
        return run_end.agreed(outcome, 0)


def make_folder(run: Path, number: int, source: Path, names: Iterable[str]) -> None:
    """Make the folder of an experience: links to the files `names` of `source`.

    Replaces the folder if it exists. Raises StorageError. Touches the disk.
    """
    folder = experiences.folder_of(run, number)
    with storage_errors(folder.data):
        remove_folder(run, number)
        for name in names:
            link = folder.data / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.abspath(source / name))
        if not number:
            return
        from models.common.split import SPLIT_FILE  # imports numpy

        # What the first task fitted, such as a tokenizer: every experience uses it.
        folder.task_files.mkdir(parents=True)
        for file in run_folder.task_files(run):
            if not file.is_symlink() and file.name not in (SPLIT_FILE, run_folder.EXPERIENCES):
                shutil.copyfile(file, folder.task_files / file.name)


def remove_folder(run: Path, number: int) -> None:
    """Remove the folder of an experience. Touches the disk."""
    shutil.rmtree(experiences.folder_of(run, number).data.parent, ignore_errors=True)


@dataclass(frozen=True)
class Reporter:
    """Writes to the console and the files of one run folder. Touches the disk."""

    folder: Path
    console: bool

    def print(self, text: str) -> None:
        """Print a line, and add it to the log."""
        if self.console:
            print(printable(text), flush=True)
        run_folder.append_log(self.folder, text)

    def event(self, kind: str, facts: Mapping[str, Any], step: int) -> None:
        """A line of events.jsonl. Raises StorageError."""
        append_event(Storage(self.folder), kind, step, facts)

    def update_result(self, ledger: Ledger, changes: Mapping[str, Any]) -> None:
        """Put the experiences and `changes` into result.json. Raises StorageError."""
        result = RunReader(self.folder).result()
        if result is None:
            return
        experiences = [
            {
                "number": e.number,
                "state": e.state,
                "files": len(e.files),
                "start_step": e.start_step,
                "end_step": e.end_step,
                **{name: (e.forgetting or {}).get(name) for name in ("metric", "old", "new")},
                "reason": e.reason,
            }
            for e in ledger.experiences
            if e.number
        ]
        path, content = self.folder / run_folder.RESULT, {**result, **changes}
        with storage_errors(path):
            atomic_write(path, encode_bytes({**content, "experiences": experiences}, indent=2))

    def outcome(self) -> dict[str, Any]:
        """The last result: the fields of training.callbacks.base.Outcome."""
        result = RunReader(self.folder).result() or {}
        return {field.name: result.get(field.name) for field in fields(Outcome)}

    def started_at(self) -> float | None:
        """When the run started, in seconds since the epoch; None if it is not known."""
        try:
            text = next(RunReader(self.folder).events()).get("time", "")
            return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
        except (StopIteration, ValueError):
            return None


class Clock:
    """The clock of the machine, and waits that a stop signal ends."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.signals: set[int] = set()
        """The stop signals that arrived."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def wait(self, seconds: float) -> None:
        """Sleep, until a stop signal at most."""
        self._stop.wait(seconds)

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Record stop signals to this process; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def record(number: int, frame: object) -> None:
            self.signals.add(number)
            self._stop.set()

        with handling(heeded(), record):
            yield


@dataclass(frozen=True)
class EndOfWait:
    """Why a run waits for no further files."""

    reason: str
    exit_code: int = exit_codes.DONE


class StopConditions:
    """The stop conditions of the settings, counted from when this object is made."""

    def __init__(self, settings: Continual, clock: Clock) -> None:
        self._clock, self._quiet_s, self._max_hours = clock, settings.quiet_s, settings.max_hours
        hours = settings.max_hours
        self.deadline = None if hours is None else clock.now() + 3600 * hours
        """The end of `max_hours`; None: no time limit."""

    def check(self, last_change: float) -> EndOfWait | None:
        """Why to stop, if the last new file was seen at `last_change`; None: wait on."""
        if signal.SIGINT in self._clock.signals:
            return EndOfWait("Ctrl-C", exit_codes.INTERRUPTED)
        if self._clock.signals:
            names = ", ".join(signal.Signals(n).name for n in sorted(self._clock.signals))
            return EndOfWait(f"received {names}", exit_codes.RUN_AGAIN)
        if self.deadline_passed:
            return self.time_limit
        if self._quiet_s is not None and self._clock.now() - last_change >= self._quiet_s:
            return EndOfWait(f"no new files for {self._quiet_s:g} s")
        return None

    def wait_s(self, longest: float, last_change: float) -> float:
        """Seconds to wait, at most `longest`, before the next condition can be met."""
        now, ends = self._clock.now(), [longest]
        if self._quiet_s is not None:
            ends.append(last_change + self._quiet_s - now)
        if self.deadline is not None:
            ends.append(self.deadline - now)
        return max(0.0, min(ends))

    @property
    def deadline_passed(self) -> bool:
        """Whether `max_hours` are over."""
        return self.deadline is not None and self._clock.now() >= self.deadline

    @property
    def time_limit(self) -> EndOfWait:
        """The stop at the end of `max_hours`."""
        return EndOfWait(f"reached the time limit of {self._max_hours:g} h: --max-hours")
