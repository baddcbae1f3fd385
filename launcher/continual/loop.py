"""Continual learning: wait for data, train on it as an experience, report."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gearshift.launcher.base import exit_codes, signals
from gearshift.launcher.base.diagnostics import SettingsError, counted
from gearshift.launcher.base.signals import ProcessPhase
from gearshift.launcher.run import execute, run_end, run_error
from gearshift.launcher.run.experience import record_settings, recorded_settings, spec_of
from gearshift.launcher.run.run_end import RunEnd
from gearshift.launcher.run.supervisor import supervise
from gearshift.launcher.run.time_limit import budget_s
from gearshift.launcher.run_folder import checkpoint_search, experiences, lock, run_folder
from gearshift.launcher.run_folder.experiences import Experience, Ledger
from gearshift.launcher.run_folder.file_records import (
    FileRecord,
    changed_files,
    record_files,
    stamp_of,
)
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.training.callbacks.base import Facts
from gearshift.training.logging.encoding import encode_bytes, printable
from gearshift.training.logging.metrics import append_event
from gearshift.training.storage import Storage, StorageError, storage_errors, write_file

_UNFINISHED = (
    ".part",
    ".partial",
    ".tmp",
    ".temp",
    ".crdownload",
    ".download",
    ".swp",
    ".lock",
    "~",
)
"""Endings of files that get another name when they are complete."""
_SHOWN = ("number", "state", "start_step", "end_step", "reason")
"""Fields of an experience in result.json."""
_MAX_SETTLE_TIMES = 10
"""Complete files wait for files that are still written, at most this many times `settle_s`."""
Files = Mapping[str, FileRecord]
"""Files as they were taken, by their path below the watched folder."""


def train_continually(plan: RunPlan, show: execute.Show) -> RunEnd:
    """Train on the data of `plan`, then on new files; gives the end.

    Ranks run only while there is something to train on. An experience that cannot be trained on is
    postponed with a message. Touches the disk.
    """

    def train(plan: RunPlan) -> RunEnd:
        def show_failure(end: RunEnd) -> None:
            if not plan.number or end.kind != "invalid input":  # else it is postponed
                show(end)

        return execute.repeat(plan, supervise, show_failure)

    try:
        return ContinualLoop(plan, train, Clock()).run()
    except (SettingsError, StorageError) as error:
        end = run_error.of_error(error, 0)
        show(end)
        return end


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

        def record(number: int) -> None:
            self.signals.add(number)
            self._stop.set()

        with signals.phase(ProcessPhase.TRAINS, record):
            yield


class Arrivals:
    """Finds the files of a folder that the run has not trained on.

    A file is complete when it is unchanged for `settle_s`, by its change time: no program sets
    that. Hidden files and files with an ending of unfinished ones are ignored; `note` gets a line
    for the user about any other ignored file.
    """

    def __init__(self, folder: Path, settle_s: float, note: Callable[[str], object]) -> None:
        self._folder = folder
        self._settle_s = settle_s
        self._note = note
        self._ignored: dict[str, FileRecord] = {}
        self.changed_at: float | None = None
        """When the newest file that is not trained on was changed, in seconds since the epoch."""

    def new_files(self, ledger: Ledger, now: float, least: int) -> Files:
        """The files of the next experience, `least` or more; empty if it cannot start yet.

        `now` is in seconds since the epoch. Reads the disk.
        """
        known = ledger.known_files()
        # Files of a postponed experience are tried again, but not without any other.
        tried = ledger.postponed.files if ledger.postponed else {}
        complete: dict[str, FileRecord] = {}
        fresh: dict[str, float] = {}
        is_growing = False
        self.changed_at = None
        for name, stamp in list_files(self._folder).items():
            record = known.get(name)
            if stamp == self._ignored.get(name) or (record and stamp == record.stamp):
                continue
            changed_at = stamp.ctime_ns / 1e9
            if record is None:
                self.changed_at = max(changed_at, self.changed_at or 0.0)
            if now - changed_at < self._settle_s:
                is_growing = True
            elif record is not None:
                self._ignored[name] = stamp
                if any(changed_files(self._folder, {name: record})):
                    self._note(f"{name} changed after it was trained on: ignored")
            else:
                complete[name] = stamp
                if name not in tried or stamp != tried[name].stamp:
                    fresh[name] = changed_at
        if len(fresh) < least:
            return {}
        # Files of one delivery arrive one after the other, but a slow one holds up no experience.
        enough_at = sorted(fresh.values())[least - 1]
        if is_growing and now - enough_at < _MAX_SETTLE_TIMES * self._settle_s:
            return {}

        files: dict[str, FileRecord] = {}
        names = {file.digest: name for name, file in known.items()}
        for name, file in record_files(self._folder, complete).items():
            other = names.get(file.digest)
            if other is None:
                files[name] = file
            else:
                self._ignored[name] = file.stamp
                self._note(f"{name} has the same content as {other}: ignored")
        return files if files.keys() & fresh.keys() else {}


def list_files(folder: Path) -> dict[str, FileRecord]:
    """The files below `folder` that may be complete, by their path, in order. Reads the disk."""
    stamps = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            inside = path.relative_to(folder).as_posix()
            if "/." in f"/{inside}" or name.lower().endswith(_UNFINISHED):
                continue
            stamp = stamp_of(path)
            if stamp:
                stamps[inside] = stamp
    return dict(sorted(stamps.items()))


class ContinualLoop:
    """Watches a folder, and starts the ranks of a run for each experience. Touches the disk."""

    def __init__(self, plan: RunPlan, train: Callable[[RunPlan], RunEnd], clock: Clock) -> None:
        """`train` runs the ranks to their end."""
        assert plan.folder, "the run folder exists"
        self._plan = plan
        self._train = train
        self._clock = clock
        self._folder = plan.folder
        self._settings = plan.resolved.settings.continual
        self._resume = plan.resume
        self._source = Path(plan.resolved.settings.data.path).expanduser()
        self._arrivals = Arrivals(self._source, self._settings.settle_s, self._note)
        self._ledger = Ledger()
        self._deadline = math.inf
        self._budget = plan.resolved.settings.train.time
        if self._budget is not None:
            self._deadline = clock.now() + budget_s(self._budget)

    def run(self) -> RunEnd:
        """Train on all experiences until a stop condition; gives the end.

        Raises SettingsError, StorageError, and what a signal raises.
        """
        self._save(self._first_ledger())  # a signal until here ends a run that has not begun
        with self._clock.catching_signals():
            while True:
                while self._ledger.unfinished:
                    end = self._train_experience(self._ledger.unfinished)
                    if end:
                        return end
                self._update_result({})
                end = self._wait() if self._settings.enabled else self._stopped("finished")
                if end:
                    return end

    def _first_ledger(self) -> Ledger:
        """The ledger at the resume point; of a run that starts, its complete first data."""
        resume = self._plan.resume
        ledger = None
        if not resume or "data" not in resume.reset:
            ledger = experiences.load(self._folder)
        if not ledger:
            return Ledger([Experience(0, self._first_files())])
        # A checkpoint before the newest one knows nothing of the experiences after it.
        if resume and resume.step is not None:
            return ledger.rewound_to(resume.step)
        return ledger

    def _first_files(self) -> Files:
        """The records of the files of the first data. Raises SettingsError."""
        clock = self._clock
        while True:
            files = self._arrivals.new_files(Ledger(), clock.now(), 1)
            if files:
                return files
            if not list_files(self._source):
                raise SettingsError.of(
                    f"data.path '{self._source}' contains no files to start with",
                    key="data.path",
                    allowed="a folder with files; more may arrive later",
                )
            clock.wait(min(self._settings.check_every_s, self._settings.settle_s))

    def _train_experience(self, experience: Experience) -> RunEnd | None:
        """Train on an experience; an end if that ends the run."""
        if experience.state == "planned":
            make_folder(self._folder, experience.number, self._source, experience.files)
            replayed = [old.number for old in self._ledger.trained if not self._missing(old.number)]
            experience = replace(experience, state="training", replayed=tuple(replayed))
            self._save(self._ledger.updated(experience))
        for number in (*experience.replayed, experience.number):
            missing = self._missing(number)
            if missing:
                self._postpone(experience, f"{missing} changed or is gone")
                return None

        # The ranks get the data and the settings of the experience, and resume the step before it.
        deadline = self._deadline if self._budget else None
        spec = spec_of(self._folder, experience, deadline)
        if experience.number:
            record_settings(self._plan.resolved, spec)
        resume = self._resume
        if not resume and self._step is not None:
            resume = ResumeRequest(self._folder)
        end = self._train(replace(self._plan, experience=spec, resume=resume))
        # The supervisor took these signals, not the clock: they end the loop, too.
        self._clock.signals |= end.signals
        if experience.number and end.kind == "invalid input":
            self._postpone(experience, end.text.removeprefix("error: "))
            return None
        outcome = end.outcome or {}
        if outcome.get("status") == "completed":
            trained = replace(
                experience,
                state="trained",
                end_step=int(outcome["steps"]),
                forgetting=outcome.get("experience"),
            )
            self._save(self._ledger.updated(trained))
            # What was asked to be resumed is done: from here on the newest checkpoint is.
            self._resume = None
            return None
        # The ranks stop at the deadline as at a signal; without one it is the end of the run.
        if end.exit_code == exit_codes.RUN_AGAIN and not end.signals:
            late = self._end_if_late()
            if late:
                return late
        self._update_result({})
        return end

    def _missing(self, number: int) -> str | None:
        """A file of an experience that changed or is gone; the first data is not checked."""
        if number == 0:
            return None
        links = experiences.data_folder(self._folder, number)
        return next(changed_files(links, self._ledger.experiences[number].files), None)

    def _postpone(self, experience: Experience, reason: str) -> None:
        """Postpone an experience; its files are tried again with the next new ones."""
        links = experiences.data_folder(self._folder, experience.number)
        reason = reason.replace(str(links), str(self._source))
        shutil.rmtree(links.parent, ignore_errors=True)
        self._save(self._ledger.updated(replace(experience, state="postponed", reason=reason)))
        line = f"experience {experience.number} postponed until more files arrive"
        facts = {"number": experience.number, "files": list(experience.files), "reason": reason}
        self._note(f"{line}: {reason.splitlines()[0]}", "experience_postponed", facts)

    def _wait(self) -> RunEnd | None:
        """Wait for new files and plan the next experience; or the end of the run."""
        clock = self._clock
        quiet_s = self._settings.quiet_s
        # The ranks hold the lock while they train; no other process may resume the run in between.
        with lock.hold(self._folder):
            source = str(self._source)
            since = clock.now()
            self._note(f"waiting for new files in {source}", "waiting_for_data", {"folder": source})
            while True:
                quiet_since = max(since, self._arrivals.changed_at or since)
                quiet_at = math.inf if quiet_s is None else quiet_since + quiet_s
                # Signals first: they must be answered within seconds, whatever has arrived.
                if clock.signals:
                    number = min(clock.signals)
                    name = signal.Signals(number).name
                    return self._stopped(f"received {name}", signals.code_of(number))
                late = self._end_if_late()
                if late:
                    return late
                if clock.now() >= quiet_at:
                    return self._stopped(f"no new files for {quiet_s:g} s")
                files = self._arrivals.new_files(
                    self._ledger, clock.now(), self._settings.min_files
                )
                if files:
                    self._plan_experience(files)
                    return None
                end_at = min(quiet_at, self._deadline)
                clock.wait(max(0.0, min(self._settings.check_every_s, end_at - clock.now())))

    def _plan_experience(self, files: Files) -> None:
        number = len(self._ledger.experiences)
        new = Experience(
            number, files, start_step=self._step or 0, settings=recorded_settings(self._settings)
        )
        self._save(self._ledger.updated(new))
        self._note(f"experience {number}: {counted(len(files), 'new file')}")

    def _end_if_late(self) -> RunEnd | None:
        """The end of a run whose budget of time is used up; None: it is not."""
        if self._clock.now() < self._deadline:
            return None
        return self._stopped(f"reached its budget of time: --for {self._budget}")

    def _stopped(self, reason: str, code: int = exit_codes.DONE) -> RunEnd:
        """The end of a run outside of its ranks; also in result.json and the events."""
        status = "stopped" if code or self._ledger.unfinished else "completed"
        facts = {"status": status, "reason": reason, "exit_code": code}
        self._note(f"stopped: {reason}", "stopped", facts)
        self._update_result({"status": status})
        result = RunReader(self._folder).result() or {}
        return run_end.agreed({"steps": self._step or 0, **result, **facts}, 0)

    @property
    def _step(self) -> int | None:
        """The step to resume from: the newest saved, or the requested one; None at the start."""
        resume = self._resume
        if resume and resume.step is not None:
            return resume.step
        newest = checkpoint_search.newest_step(self._folder)
        if newest is None and resume:
            return checkpoint_search.newest_step(resume.source)
        return newest

    def _save(self, ledger: Ledger) -> None:
        ledger.save(self._folder)
        self._ledger = ledger

    def _note(self, text: str, kind: str | None = None, facts: Facts | None = None) -> None:
        """Print a line and add it to the log, as an event of a `kind` too. Raises StorageError."""
        if self._plan.console:
            print(printable(text), flush=True)
        run_folder.append_log(self._folder, text)
        if kind is not None:
            append_event(Storage(self._folder), kind, self._step or 0, facts or {})

    def _update_result(self, changes: Facts) -> None:
        """Put the experiences and `changes` into result.json. Raises StorageError."""
        result = RunReader(self._folder).result()
        if result is None:
            return
        rows = []
        for experience in self._ledger.experiences[1:]:  # after the first data
            facts = {name: getattr(experience, name) for name in _SHOWN}
            facts["files"] = len(experience.files)
            rows.append({**facts, **(experience.forgetting or {})})
        path = self._folder / run_folder.RESULT
        write_file(path, encode_bytes({**result, **changes, "experiences": rows}, indent=2))


def make_folder(run: Path, number: int, source: Path, names: Iterable[str]) -> None:
    """Make the folder of an experience: links to the files `names` of `source`.

    Replaces the folder if it exists. Raises StorageError. Touches the disk.
    """
    folder = experiences.data_folder(run, number)
    with storage_errors(folder):
        shutil.rmtree(folder.parent, ignore_errors=True)
        for name in names:
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.abspath(source / name))
        if not number:
            return
        from gearshift.models.common.split import SPLIT_FILE  # imports numpy

        # What the first task fitted, such as a tokenizer: every experience uses it.
        home = experiences.task_folder(run, number)
        home.mkdir(parents=True)
        for file in run_folder.task_files(run):
            if not file.is_symlink() and file.name not in (SPLIT_FILE, run_folder.EXPERIENCES):
                shutil.copyfile(file, home / file.name)
