"""The process of one rank, from its signal handlers to its exit code."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from launcher.base import environment, exit_codes, library_warnings, signals
from launcher.base.signals import Stopped, handling
from launcher.run import affinity, job_spec, run_end
from launcher.run.run_end import RunEnd, exit_now
from launcher.run_folder.run_plan import RunPlan
from training.callbacks.preemption import SignalReader, heeded
from training.resources import cgroup

if TYPE_CHECKING:
    from training.callbacks.base import Outcome
    from training.evaluation.evaluate import SplitResult

Work = Callable[[RunPlan], "Outcome | SplitResult"]
_PARENT_CHECK_S = 1.0
_UNWIND_S = 3.0
"""Seconds for a rank that has saved nothing to end after a signal; a library may hold it longer."""
ORPHAN_S = 60.0
"""Seconds for a rank to save and end after its supervisor was killed."""


def worker() -> Work:
    """The function that a rank runs; imports torch."""
    with environment.importing(), signals.deferred():
        import torch._dynamo  # noqa: F401 - the first optimizer imports it

        from launcher.run.worker import work

    return work


def run(plan: RunPlan, rank: int = 0, begin: Callable[[], object] = lambda: None) -> RunEnd:
    """Run the work of a rank in this process, after `begin`; however it ends, that is returned."""
    try:
        with stoppable(), _ended_in_time(plan, rank), library_warnings.logged(plan.log):
            begin()
            affinity.pin_to_cores(plan.resolved.settings, environment.variables())
            return run_end.agreed(asdict(worker()(plan)), rank)
    # The outermost frame of a rank: every end, also Ctrl-C, is handed back.
    except BaseException as error:
        return run_end.of_error(error, rank)


def can_fork() -> bool:
    """Whether `run_forked` is needed, and possible: a control group limits the memory."""
    is_free = environment.Process.is_own and signals.job_signals() is None
    return is_free and cgroup.memory() is not None


def run_forked(plan: RunPlan) -> RunEnd:
    """As `run`, for rank 0 in a fork of this process, which the kernel may kill instead of this.

    A fork costs milliseconds, as this process has not imported torch. Signals are forwarded to it.
    Touches the disk (a temporary folder).
    """
    folder, forwarded = Path(tempfile.mkdtemp(prefix="gearshift-")), set[int]()
    ending = heeded()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    parent = os.getpid()
    unblock = partial(signal.pthread_sigmask, signal.SIG_SETMASK, before)
    if not (child := os.fork()):
        try:
            signal.signal(signal.SIGINT, _interrupt_once)
            _end_with_parent(parent)
            _save_and_exit(run(replace(plan, reports=folder), begin=unblock), folder)
        finally:  # whatever happens, it never returns into the program of its parent
            os._exit(exit_codes.FAILURE)

    def forward(number: int, frame: object) -> None:
        forwarded.add(number)
        with suppress(ProcessLookupError):
            os.kill(child, number)
            os.kill(child, signal.SIGCONT)  # a stopped one would never take it

    try:
        with handling(ending, forward):
            unblock()
            _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if (end := run_end.load(folder, 0)) is None:
            is_second = code == exit_codes.INTERRUPTED
            end = run_end.ended_at_once() if is_second else run_end.without_report(0, code, "", forwarded)
        return replace(end, signals=frozenset(forwarded))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped on a signal that ends the run, unless startup signals are handled already."""
    if _is_handled_elsewhere():
        yield
        return

    def stop(number: int, frame: object) -> NoReturn:
        raise Stopped(signal.Signals(number).name)

    with handling([n for n in heeded() if n is not signal.SIGINT], stop):
        yield


def _is_handled_elsewhere() -> bool:
    is_main = threading.current_thread() is threading.main_thread()
    return not is_main or signals.job_signals() is not None


@contextmanager
def _ended_in_time(plan: RunPlan, rank: int) -> Iterator[None]:
    """End this process some seconds after a signal that the training does not handle yet.

    Handlers of Python run between its lines only, and a library may tokenize for minutes without
    any. Does nothing outside of the main thread, and where startup signals end the process at once.
    """
    if _is_handled_elsewhere():
        yield
        return
    has_ended = threading.Event()
    handler = signals.installed()  # now: while torch is imported, signals are deferred by another one

    def end_late(number: signal.Signals) -> None:
        if has_ended.wait(_UNWIND_S):
            return
        error = KeyboardInterrupt() if number is signal.SIGINT else Stopped(number.name)
        end = run_end.of_error(error, rank)
        if plan.reports is not None:
            _save_and_exit(end, plan.reports)
        if handler is not None:
            handler.clean_up()
        os.write(2, f"{end.text}\n".encode())
        exit_now(end.exit_code)

    reader = SignalReader(end_late)
    try:
        yield
    finally:
        has_ended.set()
        reader.close()


def serve(folder: Path) -> None:
    """Run one rank of the job in `folder`, save its end there, and exit.

    The exit code is 0 for every end that all ranks agreed on: the supervisor reads the agreed code
    from what is saved.
    """
    environment.Process.is_own = True
    rank = int(environment.variables()["RANK"])
    try:
        stacks = job_spec.stacks_file(folder, rank).open("w", encoding="utf-8")
    except FileNotFoundError:  # the supervisor was stopped while it started this rank
        exit_now(exit_codes.RUN_AGAIN)
    with stacks:
        faulthandler.enable(stacks)
        # Not the current parent: the supervisor may have been killed already.
        _end_with_parent(int(environment.variables().get(job_spec.SUPERVISOR, os.getppid())))
        try:
            signals.unblock_interrupt()
            plan = job_spec.load(folder)
        except BaseException as error:  # as in `run`
            end = run_end.of_error(error, rank)
        else:
            end = run(replace(plan, console=plan.console and rank == 0), rank)
        _save_and_exit(end, folder)


def _save_and_exit(end: RunEnd, folder: Path) -> NoReturn:
    with suppress(FileNotFoundError):  # as in `serve`
        end.save(folder)
    # Also after a normal end: gloo threads sometimes abort the interpreter at shutdown.
    exit_now(exit_codes.DONE if end.kind == "ended" else end.exit_code)


def _interrupt_once(number: int, frame: object) -> NoReturn:
    """Raise KeyboardInterrupt: a Ctrl-C reaches a fork twice, from the terminal and its parent."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_parent(parent: int) -> None:
    """Make this rank save and end when its supervisor is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_S)
        os._exit(exit_codes.FAILURE)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
