"""Starts the ranks of one machine, hands signals on to them, and ends all when one fails."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base import environment
from launcher.run import failures, job_spec
from launcher.run.failures import Report, Stopped
from launcher.run.signals import deferred

if TYPE_CHECKING:
    from torch.distributed import TCPStore
    from torch.distributed.elastic.multiprocessing import SubprocessContext

POLL_S = 0.05
GRACE_S = 2.0
"""How long the other ranks may take to notice a failure themselves, before they are killed."""
_KILL_S = 5
_HOST = "127.0.0.1"
_PASSED_ON = {"SIGINT": "SIGINT", "SIGTERM": "SIGTERM", "SIGUSR1": "SIGUSR1", "SIGHUP": "SIGTERM"}


@dataclass
class Ranks:
    """The processes of one job, where they write, and the signals that reached us meanwhile."""

    context: SubprocessContext
    store: TCPStore
    """Kept open: the ranks find each other here, on a port that was free for certain."""
    job_folder: Path
    interrupts: int = 0
    passed_on: set[int] = field(default_factory=set)

    def codes(self) -> dict[int, int | None]:
        """Each rank's exit code; below 0: minus the signal that killed it; None: it runs."""
        return {rank: one.proc.poll() for rank, one in self.context.subprocess_handlers.items()}

    def signal(self, number: int) -> None:
        """Hand a signal to each rank that runs, but not to its loader workers."""
        self.passed_on.add(number)
        for rank, code in self.codes().items():
            if code is None:
                with suppress(ProcessLookupError):
                    os.kill(self.context.pids()[rank], number)

    def end(self) -> None:
        """Kill what is left, the ranks' own children included."""
        self.context.close(signal.SIGKILL, _KILL_S)
        for group in self.context.pids().values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def supervise(
    job: job_spec.Job,
    threads: int,
    tell: Callable[[Report], None],
    module: str = "launcher.run.rank",
    forwarded: set[int] | None = None,
) -> Report:
    """Run `job` as `job.resolved.nproc` processes of `module`; the report that decides its end.

    `threads` is how many a rank computes with on the CPU. `tell` is given a failing rank's report
    at once, before the others are ended; `forwarded` collects those that were handed on. The
    processes are started by torch's elastic launcher, below its agent: after a signal the agent
    kills ranks within 30 s, too soon for a checkpoint, and after a failure it waits as long for the
    others, too long for a person. Touches the disk (a temporary folder), opens a port on this
    machine.
    """
    undo = ExitStack()
    try:
        with deferred(_PASSED_ON):  # one that came between the two would leave the folder behind
            folder = Path(tempfile.mkdtemp(prefix="gearshift-"))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        job_spec.save(job, folder)
        with _start(folder, job.resolved.nproc, threads, module) as ranks:
            ranks.passed_on = forwarded if forwarded is not None else set()
            ending = _watch(ranks)
            if ending.kind != "ended":
                tell(ending)
                _wait_until(lambda: None not in ranks.codes().values(), GRACE_S)
        failures.log_other_ranks(ranks.context, folder, ending, job.folder)
        return ending
    except (KeyboardInterrupt, Stopped) as fault:
        return failures.failed(fault, 0)
    finally:
        undo.close()


def _watch(ranks: Ranks) -> Report:
    """Wait for the first failure, or for all ranks to end as they agreed."""
    lost_since: float | None = None
    while ranks.interrupts < 2:
        codes = ranks.codes()
        failure = failures.first_failure(codes, ranks.context, ranks.job_folder, ranks.passed_on)
        all_gone = None not in codes.values()
        if failure is not None and (all_gone or failure.kind != "peer lost"):
            return failure
        if failure is not None:
            # Why the peer had gone will be known as soon as that one's process has ended.
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > GRACE_S:
                return failure
        elif all_gone:
            ending = failures.load(ranks.job_folder, 0)
            assert ending is not None, "a rank that ended without a report has failed"
            return ending
        time.sleep(POLL_S)
    return failures.interrupted_twice()


@contextmanager
def _start(folder: Path, nproc: int, threads: int, module: str) -> Iterator[Ranks]:
    with deferred(_PASSED_ON):  # an import that is broken off may fail in a way of its own
        from torch.distributed import TCPStore
        from torch.distributed.elastic.multiprocessing import (
            DefaultLogsSpecs,
            Std,
            start_processes,
        )

    # It warns of each process that it ends, and of a supervisor outside the main thread.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
    with _handlers_put_back():
        with _plain_signals():
            context: Any = start_processes(
                name="rank",
                entrypoint=sys.executable,
                args={rank: ("-m", module, str(folder)) for rank in range(nproc)},
                envs={
                    rank: _environment(rank, nproc, store.port, threads) for rank in range(nproc)
                },
                # Only rank 0 writes to the terminal.
                logs_specs=DefaultLogsSpecs(
                    str(folder / "logs"), redirects={rank: Std.ALL for rank in range(1, nproc)}
                ),
            )
        ranks = Ranks(context, store, folder)
        try:
            _pass_signals_on(ranks)
            yield ranks
        finally:
            ranks.end()


@contextmanager
def _plain_signals() -> Iterator[None]:
    """A signal while torch's launcher starts the ranks, and has handlers of its own, as ours."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    try:
        yield
    except SignalException as fault:
        if fault.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise Stopped(fault.sigval.name) from None


def _environment(rank: int, nproc: int, port: int, threads: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(nproc),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(nproc),
        "GROUP_RANK": "0",
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        # What torch's own agent says when it keeps the store, as we do.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        job_spec.SUPERVISOR: str(os.getpid()),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": environment.python_path(),
    }


def _pass_signals_on(ranks: Ranks) -> None:
    """From now on a signal to this process goes to the ranks, which save and end themselves."""
    if threading.current_thread() is not threading.main_thread():
        return

    def handler(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            ranks.interrupts += 1
        if ranks.interrupts < 2:
            ranks.signal(getattr(signal, _PASSED_ON[signal.Signals(number).name]))

    for name in _PASSED_ON:
        signal.signal(getattr(signal, name), handler)


@contextmanager
def _handlers_put_back() -> Iterator[None]:
    """Afterwards signals do what they did before; torch's launcher and we set handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in (*_PASSED_ON, "SIGQUIT")]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until(happened: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not happened() and time.monotonic() < end:
        time.sleep(POLL_S)
