"""Takes steps of a run again, in processes and in a folder of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engines.catalog import ENGINES
from launcher.base import exit_codes
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import machine
from launcher.config.provenance import CliArgs, Resolved
from launcher.config.resolve import resolve
from launcher.resume.resume_point import Resume
from launcher.run import affinity, experience, supervisor
from launcher.run.failures import Report
from launcher.run.job_spec import Job
from launcher.run.signals import answered
from launcher.run_folder import run_folder
from launcher.verify.interval import Stretch
from training.checkpoint import manifest
from training.checkpoint.manifest import Manifest

_PREFIX = "gearshift-verify-"
_OWN = "the settings of the run"


@dataclass(frozen=True)
class Replay:
    """Steps that were taken again; the folder is gone when its `with` is left."""

    report: Report
    folder: Path
    signals: frozenset[int]
    """Those that reached it."""


def resolved_as(settings: Mapping[str, Any], written: Manifest, words: CliArgs) -> Resolved:
    """The run's own `settings` (a tree), with the engine and the processes in `words`.

    Where the person named none, they are those that wrote the checkpoint. Raises SettingsError.
    """
    tree = deepcopy(dict(settings))
    tree.get("train", {}).pop("accumulation", None)  # follows from the batch and the processes
    engine = tree.setdefault("engine", {})
    engine.update(name=written.engine, nproc=written.world_size)
    if words.engine is not None and words.engine != written.engine:
        engine.pop("ds_config", None)
        tree["unread_settings"] = "warn"
        if words.engine in ENGINES:
            _make_way(tree, words.engine)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as home:
        path = Path(home) / "settings.json"
        path.write_text(json.dumps(tree), encoding="utf-8")
        typed = CliArgs(engine=words.engine, options=words.options, configs=[path])
        try:
            return resolve(typed, machine.detect_machine())
        except SettingsError as error:
            raise SettingsError([_named(fault, f"{path}:1") for fault in error.diagnostics]) from (
                error
            )


def _named(fault: Diagnostic, written: str) -> Diagnostic:
    """The fault of a setting with the place that a person knows, not that of our file."""
    if fault.where is not None and fault.where.startswith(written):
        is_nproc = fault.key == "engine.nproc" and fault.did_you_mean is not None
        return replace(
            fault,
            where=fault.where.replace(written, _OWN),
            fix=f"--nproc {fault.did_you_mean}" if is_nproc else None,
        )
    if fault.overrides is not None and fault.overrides[1].startswith(written):
        return replace(fault, overrides=(fault.overrides[0], _OWN))
    return fault


def _make_way(tree: dict[str, Any], name: str) -> None:
    """Leave out what the engine `name` decides itself."""
    entry = ENGINES[name]
    if entry.processes is not None:
        tree["engine"].pop("nproc")
    for key in entry.settings:
        *above, last = key.split(".")
        branch = tree
        for part in above:
            branch = branch.get(part, {})
        branch.pop(last, None)


@contextmanager
def replay(stretch: Stretch, run: Path, resolved: Resolved) -> Iterator[Replay]:
    """Take the steps of `stretch` again; the run folder `run` is only read.

    The processes are new ones also where one is enough. What they print is kept to themselves. The
    folder lies where the system keeps temporary files (TMPDIR), and is removed on leaving, also
    when a signal ends this process. Raises SettingsError.
    """
    with _ended_by_signals(), tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        home = Path(name)
        source = home / "source"
        checkpoints = source / run_folder.CHECKPOINTS
        checkpoints.mkdir(parents=True)
        if stretch.source is not None:
            # Ranks put right what lies around a checkpoint: here they find nothing but this link.
            link = checkpoints / manifest.step_folder(stretch.after)
            link.symlink_to(stretch.source.resolve(), target_is_directory=True)
        folder = run_folder.make(resolved, home / "replay", "").path
        _carry_along(run, folder)
        step = None if stretch.source is None else stretch.after
        resume = Resume(source, step=step, reset=stretch.reset, until=stretch.upto)
        told = experience.spec_at(run, stretch.after, stretch.upto)
        job = Job(resolved, folder, console=False, resume=resume, experience=told)
        signals: set[int] = set()
        with _printing_into(home / "printed.txt"):
            threads = _threads(resolved)
            report = supervisor.supervise(job, threads, lambda report: None, signals=signals)
        yield Replay(report, folder, frozenset(signals))


def _carry_along(run: Path, folder: Path) -> None:
    """Give the replay what a task keeps in the run folder: a tokenizer, how the data was split."""
    for entry in run.iterdir():
        is_hidden = entry.name.startswith(".")
        if entry.is_file() and not is_hidden and not run_folder.is_record(entry.name):
            shutil.copyfile(entry, folder / entry.name)


def _threads(resolved: Resolved) -> int:
    """Threads of a process: as many as the run had, for sums depend on them."""
    if affinity.are_left_to_torch(resolved.settings, resolved.nproc):
        return affinity.of_torch()
    asked = resolved.settings.engine.threads
    return affinity.threads(asked, machine.detect_machine().cores, resolved.nproc, os.environ)


@contextmanager
def _printing_into(path: Path) -> Iterator[None]:
    """What this process and those it starts print meanwhile goes into the file `path`."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    with path.open("wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end this process as Ctrl-C does: what is open is given back first."""

    def end(number: int, frame: object) -> None:
        sys.exit(exit_codes.RUN_AGAIN)

    with answered((signal.SIGTERM, signal.SIGHUP), end):
        yield
