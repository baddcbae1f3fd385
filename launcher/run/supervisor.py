"""The supervisor: starts the ranks of one machine, forwards signals, ends all when one fails."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from launcher.base import environment, exit_codes
from launcher.base.signals import Stopped, deferred, interrupt_blocked, numbers
from launcher.run import failures, job_spec
from launcher.run.failures import RankReport
from launcher.run.faults import FAULTS
from launcher.run_folder import run_folder

if TYPE_CHECKING:
    from torch.distributed import TCPStore
    from torch.distributed.elastic.multiprocessing import SubprocessContext

POLL_S = 0.05
GRACE_S = 2.0
"""Seconds for the other ranks to notice a failure before they are killed."""
_KILL_S = 5
_STACK_S = 1.0
_HOST = "127.0.0.1"
_OUTPUT_BYTES = 4000
_PRIORITY = {
    "killed": 0,
    "invalid input": 1,
    "failed": 1,
    "out of memory": 1,
    "stopped": 2,
    "fenced": 2,
    "peer lost": 3,
}
_STATES = {
    "stopped": "stopped (by SIGSTOP, Ctrl-Z or a debugger)",
    "disk-sleep": "waiting for a disk or a network file system",
    "running": "still computing",
    "sleeping": "waiting",
}
_FORWARDED = {"SIGINT": "SIGINT", "SIGTERM": "SIGTERM", "SIGUSR1": "SIGUSR1", "SIGHUP": "SIGTERM"}


@dataclass
class RankProcesses:
    """The processes of one job, their store and folder, and the forwarded signals."""

    context: SubprocessContext
    store: TCPStore
    """Kept open: the rendezvous of the ranks, on a port that is known to be free."""
    job_folder: Path
    interrupts: int = 0
    forwarded: set[int] = field(default_factory=set)

    def codes(self) -> dict[int, int | None]:
        """Exit codes by rank; negative: killed by that signal; None: running."""
        return {
            rank: handler.proc.poll() for rank, handler in self.context.subprocess_handlers.items()
        }

    def signal(self, number: int) -> None:
        """Send a signal to each running rank, not to its data-loader workers."""
        self.forwarded.add(number)
        for rank, code in self.codes().items():
            if code is None:
                with suppress(ProcessLookupError):
                    os.kill(self.context.pids()[rank], number)

    def end(self) -> None:
        """Kill the remaining ranks and their child processes."""
        self.context.close(signal.SIGKILL, _KILL_S)
        for group in self.context.pids().values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def supervise(
    job: job_spec.Job,
    threads: int,
    show: Callable[[RankReport], None],
    module: str = "launcher.run.rank",
    forwarded: set[int] | None = None,
) -> RankReport:
    """Run `job` as `job.resolved.nproc` processes of `module`; returns the deciding report.

    Each rank computes with `threads` CPU threads. `show` gets the report of a failing rank at once,
    before the others are ended; `forwarded` collects forwarded signals. The processes are started
    by the elastic launcher of torch, without its agent: the agent kills ranks 30 s after a signal,
    too soon for a checkpoint, and waits as long for the others after a failure. Touches the disk (a
    temporary folder) and opens a port on this machine.
    """
    cleanup = ExitStack()
    try:
        with deferred(_FORWARDED):  # a signal in between would leave the folder behind
            folder = Path(tempfile.mkdtemp(prefix="gearshift-"))
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        job_spec.save(job, folder)
        with _start(folder, job.resolved.nproc, threads, module) as ranks:
            ranks.forwarded = forwarded if forwarded is not None else set()
            report = _watch(ranks)
            if report.kind != "ended":
                show(report)
                _wait_until(lambda: None not in ranks.codes().values(), GRACE_S)
        log_other_ranks(ranks.context, folder, report, job.folder)
        return report
    except (KeyboardInterrupt, Stopped) as error:
        return failures.failed(error, 0)
    finally:
        cleanup.close()


def _watch(ranks: RankProcesses) -> RankReport:
    """Wait for the first failure, or for the agreed end of all ranks."""
    lost_since: float | None = None
    while ranks.interrupts < 2:
        codes = ranks.codes()
        failure = first_failure(codes, ranks.context, ranks.job_folder, ranks.forwarded)
        all_gone = None not in codes.values()
        if failure is not None and (all_gone or failure.kind != "peer lost"):
            return failure
        if failure is not None:
            # The lost peer reports the reason when its process has ended.
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > GRACE_S:
                return _frozen(ranks, codes) or failure
        elif all_gone:
            report = failures.load(ranks.job_folder, 0)
            assert report is not None, "a rank without a report has failed"
            return report
        time.sleep(POLL_S)
    return failures.interrupted_twice()


def _frozen(ranks: RankProcesses, codes: Mapping[int, int | None]) -> RankReport | None:
    """The report for a rank that others have lost, but whose process goes on; None: there is none.

    The rank is asked for its stacks with SIGABRT, which ends it.
    """
    for rank, code in codes.items():
        if code is None and failures.load(ranks.job_folder, rank) is None:
            process = ranks.context.pids()[rank]
            state = psutil.Process(process).status()
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGABRT)
            with suppress(subprocess.TimeoutExpired):
                ranks.context.subprocess_handlers[rank].proc.wait(_STACK_S)
            return frozen_report(rank, process, state, ranks.job_folder)
    return None


@contextmanager
def _start(folder: Path, nproc: int, threads: int, module: str) -> Iterator[RankProcesses]:
    with deferred(_FORWARDED):  # an interrupted import may fail in other ways
        from torch.distributed.elastic.multiprocessing import (
            DefaultLogsSpecs,
            Std,
            start_processes,
        )

        from engines.rendezvous import tcp_store

    # It warns about each process that it ends, and about threads other than the main thread.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    store = tcp_store(_HOST, 0, is_master=True, wait_for_workers=False)
    handled = numbers(_FORWARDED)  # the launcher of torch handles all of them
    with _handlers_restored():
        # A rank that is interrupted while it imports this program would print a traceback.
        with _own_exceptions(), interrupt_blocked():
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
        ranks = RankProcesses(context, store, folder)
        try:
            _forward_signals(ranks, handled)
            yield ranks
        finally:
            ranks.end()


@contextmanager
def _own_exceptions() -> Iterator[None]:
    """Raise Stopped or KeyboardInterrupt for signals that the launcher of torch handles."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    try:
        yield
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise Stopped(error.sigval.name) from None


def _environment(rank: int, nproc: int, port: int, threads: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(nproc),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(nproc),
        "GROUP_RANK": "0",
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        # The agent of torch sets this when it owns the store, as this process does.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        job_spec.SUPERVISOR: str(os.getpid()),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": environment.python_path(),
    }


def _forward_signals(ranks: RankProcesses, handled: Sequence[int]) -> None:
    """Forward the `handled` signals to the ranks, which save and end; ignore the others."""
    if threading.current_thread() is not threading.main_thread():
        return

    def handler(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            ranks.interrupts += 1
        if ranks.interrupts < 2:
            ranks.signal(getattr(signal, _FORWARDED[signal.Signals(number).name]))

    for name in _FORWARDED:
        number = getattr(signal, name)
        signal.signal(number, handler if number in handled else signal.SIG_IGN)


@contextmanager
def _handlers_restored() -> Iterator[None]:
    """Restore the signal handlers, which the launcher of torch and this module replace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    replaced = [getattr(signal, name) for name in (*_FORWARDED, "SIGQUIT")]
    before = {number: signal.getsignal(number) for number in replaced}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until(happened: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not happened() and time.monotonic() < end:
        time.sleep(POLL_S)


def frozen_report(rank: int, process: int, state: str, folder: Path) -> RankReport:
    """The report for a rank that no longer answers the others, with its stacks if it wrote them.

    `state` is that of psutil.
    """
    text = FAULTS["timeout"].seen.format(
        rank=rank, host=socket.gethostname(), process=process, state=_STATES.get(state, state)
    )
    written = failures.stacks_file(folder, rank)
    stacks = written.read_text(encoding="utf-8", errors="replace") if written.exists() else ""
    report = failures.build_report("failed", exit_codes.FAILURE, rank, f"error: {text}", stacks)
    return replace(report, fault="timeout")


def first_failure(
    codes: Mapping[int, int | None],
    context: SubprocessContext,
    folder: Path,
    forwarded: set[int],
) -> RankReport | None:
    """The report of the rank that failed first; None: none has. `codes` are their exit codes.

    A killed rank, which has no report, comes first, since its peers only notice later; then the
    earliest failure, then stops, then ranks that lost a peer. `forwarded` holds the signals that
    the supervisor sent: a rank that died of one during its start-up was stopped.
    """
    failed = []
    for rank, code in codes.items():
        report = failures.load(folder, rank)
        if report is not None and report.kind != "ended":
            failed.append((_PRIORITY[report.kind], report.at, report))
        elif report is None and code is not None:
            ending = failures.without_report(rank, code, _output(context, rank), forwarded)
            # Communication libraries abort when another rank is gone.
            is_abort = ending.kind == "killed" and code == -signal.SIGABRT
            failed.append((_PRIORITY["peer lost" if is_abort else ending.kind], 0.0, ending))
    return min(failed, key=lambda entry: entry[:2])[2] if failed else None


def log_other_ranks(
    context: SubprocessContext, folder: Path, shown: RankReport, run: Path | None
) -> None:
    """Append the output and tracebacks of ranks other than 0 to the log of the run.

    Except for invalid input: then nothing is written, least of all to a resumed run.
    """
    if run is None or not run.is_dir() or shown.kind == "invalid input":
        return
    for rank in context.pids():
        report = failures.load(folder, rank)
        texts = [_output(context, rank)]
        if report is not None and report.rank != shown.rank:
            texts += [report.text, report.trace]
        for text in filter(None, (text.strip() for text in texts)):
            run_folder.append_log(run, f"[rank {rank}]\n{text}")


def _output(context: SubprocessContext, rank: int) -> str:
    """The last output of a rank other than 0; rank 0 prints to the terminal."""
    texts = []
    for path in (context.stdouts[rank], context.stderrs[rank]):
        if path:
            texts.append(Path(path).read_bytes()[-_OUTPUT_BYTES:].decode(errors="replace"))
    return "\n".join(texts).strip()
