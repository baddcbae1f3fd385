"""Continual learning: wait for data, train on it as an experience, report."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path

from gearshift.launcher.base import exit_codes, signals
from gearshift.launcher.base.diagnostics import SettingsError, counted
from gearshift.launcher.base.signals import ProcessPhase, Stopped
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
from gearshift.training.callbacks.base import Facts, Outcome
from gearshift.training.logging.encoding import encode_bytes, printable
from gearshift.training.logging.metrics import append_event
from gearshift.training.storage import Storage, StorageError, atomic_write, storage_errors

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
    shown: list[RunEnd] = []

    def train(plan: RunPlan) -> RunEnd:
        def show_once(end: RunEnd) -> None:
            if not plan.number or end.kind != "invalid input":
                shown.append(end)
                show(end)

        return execute.repeat(plan, supervise, show_once)

    end = ContinualLoop(replace(plan, threads=plan.threads or 1), train, Clock()).run()
    if end.kind != "ended" and end not in shown:
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
    for the user about any other ignored file. `now` is in seconds since the epoch.
    """

    def __init__(
        self, folder: Path, settle_s: float, min_files: int, note: Callable[[str], object]
    ) -> None:
        self._folder = folder
        self._settle_s = settle_s
        self._min_files = min_files
        self._note = note
        self._ignored = dict[str, FileRecord]()
        self._last_scan = dict[str, FileRecord]()
        self._ready_since: float | None = None
        self.changed_at: float | None = None
        """When a new or changed file was last seen."""

    def first_files(self, now: float) -> Files | None:
        """The files at the start of the run; None while some are still being written."""
        complete, growing = self._scan({}, now)
        if not growing and not complete:
            return {}
        if not self._is_ready(growing, complete, now, 1):
            return None
        return record_files(self._folder, complete)

    def new_files(self, ledger: Ledger, now: float) -> Files:
        """The files of the next experience; empty if it cannot start yet."""
        known = ledger.known_files()
        complete, growing = self._scan(known, now)
        for name in sorted(known.keys() & complete.keys()):
            self._ignored[name] = complete.pop(name)
            if any(changed_files(self._folder, {name: known[name]})):
                self._note(f"{name} changed after it was trained on: ignored")

        # Files of a postponed experience are tried again, but not without any other.
        tried = ledger.postponed.files if ledger.postponed else {}
        stamps = {name: file.stamp for name, file in tried.items()}
        fresh = {name: stamp for name, stamp in complete.items() if stamp != stamps.get(name)}
        if not self._is_ready(growing, fresh, now, self._min_files):
            return {}
        files: dict[str, FileRecord] = {}
        names = {file.digest: name for name, file in known.items()}
        for name, file in record_files(self._folder, complete).items():
            other = names.setdefault(file.digest, name)
            if other == name:
                files[name] = file
            else:
                self._ignored[name] = file.stamp
                self._note(f"{name} has the same content as {other}: ignored")
        return files if files.keys() & fresh.keys() else {}

    def _scan(
        self, known: Files, now: float
    ) -> tuple[dict[str, FileRecord], dict[str, FileRecord]]:
        """The complete files and the growing ones, without `known` and ignored ones."""
        complete = {}
        growing = {}
        new = {}
        for name, stamp in list_files(self._folder).items():
            if stamp == self._ignored.get(name):
                continue
            if name not in known:
                new[name] = stamp
            elif stamp == known[name].stamp:
                continue
            if now - stamp.ctime_ns / 1e9 < self._settle_s:
                growing[name] = stamp
            else:
                complete[name] = stamp
        # A file that only disappeared is no arrival.
        if new.items() - self._last_scan.items():
            self.changed_at = now
        self._last_scan = new
        return complete, growing

    def _is_ready(self, growing: Sized, fresh: Sized, now: float, least: int) -> bool:
        """Whether enough files are complete, and no other file is expected soon."""
        if len(fresh) < least:
            self._ready_since = None
            return False
        if self._ready_since is None:
            self._ready_since = now
        # Files of one delivery arrive one after the other, but a slow one holds up no experience.
        if growing and now - self._ready_since < _MAX_SETTLE_TIMES * self._settle_s:
            return False
        self._ready_since = None
        return True


def list_files(folder: Path) -> dict[str, FileRecord]:
    """The files below `folder` that may be complete, by their path, in order. Reads the disk."""
    stamps = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or name.lower().endswith(_UNFINISHED):
                continue
            path = Path(root, name)
            stamp = stamp_of(path)
            if stamp:
                stamps[path.relative_to(folder).as_posix()] = stamp
    return stamps


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
        self._arrivals = Arrivals(
            self._source, self._settings.settle_s, self._settings.min_files, self._note
        )
        self._ledger = Ledger()
        self._deadline: float | None = None
        self._time: str | None = plan.resolved.settings.train.time
        if self._time is not None:
            self._deadline = clock.now() + budget_s(self._time)

    def run(self) -> RunEnd:
        """Train on all experiences until a stop condition; gives the end."""
        with self._clock.catching_signals():
            try:
                self._save(self._first_ledger())
                while True:
                    while self._ledger.unfinished:
                        end = self._train_experience(self._ledger.unfinished)
                        if end:
                            return end
                    self._update_result({})
                    end = self._wait() if self._settings.enabled else self._stopped("finished")
                    if end:
                        return end
            except (SettingsError, StorageError, KeyboardInterrupt, Stopped) as error:
                return run_error.of_error(error, 0)

    def _first_ledger(self) -> Ledger:
        """The ledger at the resume point; of a run that starts, its complete first data."""
        resume = self._plan.resume
        restarts_data = resume and "data" in resume.reset
        # A checkpoint before the newest one knows nothing of the experiences after it.
        ledger = None if restarts_data else experiences.load(self._folder)
        if ledger:
            if resume and resume.step is not None:
                return ledger.rewound_to(resume.step)
            return ledger
        step = self._step
        if restarts_data or not resume or step is None:
            return Ledger([Experience(0, self._first_files())])

        # The run was not continual until now: files newer than it are new.
        started_at = math.inf
        with suppress(StopIteration, ValueError):
            text = next(RunReader(self._folder).events()).get("time", "")
            started_at = datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
        earlier = {
            name: stamp
            for name, stamp in list_files(self._source).items()
            if stamp.mtime_ns / 1000000000.0 <= started_at
        }
        files = record_files(self._source, earlier)
        make_folder(self._folder, 0, self._source, files)
        if self._plan.is_trained:
            return Ledger([Experience(0, files, "trained", end_step=step)])
        return Ledger([Experience(0, files, "training")])

    def _first_files(self) -> Files:
        """The records of the files of the first data. Raises SettingsError."""
        clock = self._clock
        files = self._arrivals.first_files(clock.now())
        while files is None:
            if clock.signals:
                raise signals.exception(min(clock.signals))
            clock.wait(min(self._settings.check_every_s, self._settings.settle_s))
            files = self._arrivals.first_files(clock.now())
        if not files:
            raise SettingsError.of(
                f"data.path '{self._source}' contains no files to start with",
                key="data.path",
                value=str(self._source),
                allowed="a folder with files; more may arrive later",
            )
        return files

    def _train_experience(self, experience: Experience) -> RunEnd | None:
        """Train on an experience; an end if that ends the run."""
        if experience.state == "planned":
            make_folder(self._folder, experience.number, self._source, experience.files)
            experience = replace(experience, state="training", replayed=tuple(self._replayable()))
            self._save(self._ledger.updated(experience))
        missing = self._missing(experience)
        if missing is not None:
            self._postpone(experience, f"{missing} changed or is gone")
            return None

        # The ranks get the data and the settings of the experience, and resume the step before it.
        spec = spec_of(self._folder, experience, self._deadline)
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
        if end.exit_code == exit_codes.RUN_AGAIN and not end.signals and self._is_late():
            return self._stopped(self._time_limit)
        self._update_result({})
        return end

    def _replayable(self) -> Iterator[int]:
        """The numbers of the earlier experiences whose files are whole."""
        for old in self._ledger.trained:
            missing = experiences.missing_file(self._folder, old) if old.number else None
            if not missing:
                yield old.number
            else:
                self._note(f"experience {old.number} is not replayed: {missing} changed or is gone")

    def _missing(self, experience: Experience) -> str | None:
        """A file that is needed to train on an experience, but changed or is gone."""
        if not experience.number:
            return None
        for number in (*experience.replayed, experience.number):
            missing = experiences.missing_file(self._folder, self._ledger.experiences[number])
            if missing:
                is_own = number == experience.number
                return missing if is_own else f"{missing} of experience {number}"
        return None

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
        # The ranks hold the lock while they train; nobody else may resume the run in between.
        with lock.hold(self._folder):
            source = str(self._source)
            since = clock.now()
            self._note(f"waiting for new files in {source}", "waiting_for_data", {"folder": source})
            while True:
                quiet_since = max(since, self._arrivals.changed_at or since)
                quiet_at = math.inf if quiet_s is None else quiet_since + quiet_s
                # Signals first: they must be answered within seconds, whatever has arrived.
                if signal.SIGINT in clock.signals:
                    return self._stopped("Ctrl-C", exit_codes.INTERRUPTED)
                if clock.signals:
                    names = [signal.Signals(number).name for number in sorted(clock.signals)]
                    return self._stopped(f"received {', '.join(names)}", exit_codes.RUN_AGAIN)
                if self._is_late():
                    return self._stopped(self._time_limit)
                if clock.now() >= quiet_at:
                    return self._stopped(f"no new files for {quiet_s:g} s")
                files = self._arrivals.new_files(self._ledger, clock.now())
                if files:
                    self._plan_experience(files)
                    return None
                end_at = min(quiet_at, self._deadline or math.inf)
                clock.wait(max(0.0, min(self._settings.check_every_s, end_at - clock.now())))

    def _plan_experience(self, files: Files) -> None:
        number = len(self._ledger.experiences)
        new = Experience(
            number, files, start_step=self._step or 0, settings=recorded_settings(self._settings)
        )
        self._save(self._ledger.updated(new))
        names = ", ".join([*files][:3])
        if len(files) > 3:
            names += ", …"
        line = f"experience {number}: {counted(len(files), 'new file')}: {names}"
        self._note(line, "experience_planned", {"number": number, "files": list(files)})

    @property
    def _time_limit(self) -> str:
        return f"reached its budget of time: --for {self._time}"

    def _is_late(self) -> bool:
        """Whether the budget of time is used up."""
        return self._deadline is not None and self._clock.now() >= self._deadline

    def _stopped(self, reason: str, code: int = exit_codes.DONE) -> RunEnd:
        """The end of a run outside of its ranks; also in result.json and the events."""
        status = "stopped" if code or self._ledger.unfinished else "completed"
        facts = {"status": status, "reason": reason, "exit_code": code}
        self._note(f"stopped: {reason}", "stopped", facts)
        self._update_result({"status": status})
        result = RunReader(self._folder).result() or {}
        outcome = {field.name: result.get(field.name) for field in fields(Outcome)}
        return run_end.agreed({**outcome, **facts}, 0)

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
            forgetting = experience.forgetting or {}
            rows.append(
                {
                    **{name: getattr(experience, name) for name in _SHOWN},
                    **{name: forgetting.get(name) for name in ("metric", "old", "new")},
                    "files": len(experience.files),
                }
            )
        path = self._folder / run_folder.RESULT
        with storage_errors(path):
            atomic_write(path, encode_bytes({**result, **changes, "experiences": rows}, indent=2))


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
