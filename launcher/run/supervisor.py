"""The supervisor: starts the ranks of one machine, forwards signals, ends all when one fails."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import psutil
from pydantic import TypeAdapter

from gearshift.engines import environment as engine_environment
from gearshift.engines.environment import RankInfo
from gearshift.launcher.base import environment, exit_codes, signals
from gearshift.launcher.base.signals import ProcessPhase, Stopped
from gearshift.launcher.base.temporary import temporary_folder
from gearshift.launcher.run import run_end, run_error
from gearshift.launcher.run.faults import FAULTS, recognized
from gearshift.launcher.run.run_end import RunEnd
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.training.storage import write_file

MODULE = "gearshift.launcher.run.rank"
"""What each rank runs."""
SUPERVISOR = "GEARSHIFT_SUPERVISOR"
"""Environment variable of ranks with the process id of the supervisor."""
PLAN = "job.json"
_POLL_S = 0.05
_GRACE_S = 2.0
"""Seconds for the other ranks to notice a failure before they are killed."""
_STACK_S = 1.0
_OUTPUT_BYTES = 8000
_PRIORITY = {"killed": 0, "stopped": 2, "fenced": 2, "peer lost": 3}
"""Of an end to be the one that decides; of any other failure 1."""


class RankProcesses:
    """The processes of one run, their folder, and the forwarded signals.

    They are started by subprocess, not by the elastic agent of torch: the agent kills ranks 30 s
    after a signal, too soon for a checkpoint, and waits as long for the others after a failure.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signals: list[int] = []
        """Those that have arrived, in a thread; the ranks get them in the loop that watches."""
        self._sent = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ends: dict[int, RunEnd] = {}
        """What the ranks that have exited ended with."""

    def start(self, plan: RunPlan) -> None:
        """Start the ranks; each in a session of its own, without the signals of the terminal."""
        nproc = plan.resolved.nproc
        shared = {
            **environment.variables(),
            "PYTHONPATH": environment.python_path(),
            SUPERVISOR: str(os.getpid()),
            engine_environment.FOLDER: str(self.folder),
        }
        if plan.threads:
            shared[environment.THREADS] = str(plan.threads)
        # A rank that is interrupted while it imports this program would print a traceback, and an
        # interrupted import may fail in other ways: it takes a Ctrl-C later.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for rank in range(nproc):
                variables = RankInfo(rank, nproc, rank, nproc).variables() if nproc > 1 else {}
                is_shown = plan.console and rank == 0
                with nullcontext() if is_shown else self._output_file(rank).open("wb") as output:
                    process = subprocess.Popen(
                        [sys.executable, "-m", MODULE, str(self.folder)],
                        env=shared | variables,
                        start_new_session=True,
                        stdout=output,
                        stderr=output,
                    )
                self.processes.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def forward_signals(self) -> None:
        """Forward the signals that have arrived since to the ranks, which save and end."""
        for number in self.signals[self._sent :]:
            self._sent += 1
            for process in self.processes:
                process.send_signal(number)  # not to its data-loader workers
                process.send_signal(signal.SIGCONT)  # a stopped one would never take it

    def have_ended(self) -> bool:
        """Whether all ranks have exited; takes the ends of those that have."""
        for rank, process in enumerate(self.processes):
            code = process.poll()
            if rank in self.ends or code is None:
                continue
            self.ends[rank] = run_end.load(self.folder, rank) or without_report(
                rank, code, self.output(rank), self.signals
            )
        return len(self.ends) == len(self.processes)

    def first_failure(self) -> RunEnd | None:
        """The end of the rank that failed first; None: none has.

        A killed rank, which has no report, comes first, since its peers only notice later; then the
        earliest failure, then stops, then ranks that lost a peer.
        """

        def urgency(end: RunEnd) -> tuple[int, float]:
            if end.kind != "killed":
                return _PRIORITY.get(end.kind, 1), end.at
            # Communication libraries abort when another rank is gone.
            is_abort = self.processes[end.rank].returncode == -signal.SIGABRT
            return _PRIORITY["peer lost" if is_abort else "killed"], 0.0

        failures = [end for end in self.ends.values() if end.kind != "ended"]
        return min(failures, key=urgency, default=None)

    def output(self, rank: int) -> str:
        """The last output of a rank that does not print to the terminal."""
        path = self._output_file(rank)
        written = path.read_bytes() if path.exists() else b""
        return written[-_OUTPUT_BYTES:].decode(errors="replace").strip()

    def _output_file(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.out"

    def end(self) -> None:
        """Kill the remaining ranks and their child processes."""
        for process in self.processes:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()


def supervise(plan: RunPlan) -> RunEnd:
    """Run the ranks of `plan` in processes of their own; returns the end that decides.

    Touches the disk (a temporary folder).
    """
    try:
        with temporary_folder("gearshift-") as folder:
            save_plan(plan, folder)
            ranks = RankProcesses(folder)
            with (
                environment.logged(plan.log),
                signals.phase(ProcessPhase.TRAINS, ranks.signals.append),
            ):
                try:
                    ranks.start(plan)
                    end = _watch(ranks)
                    limit = time.monotonic() + _GRACE_S
                    while not ranks.have_ended() and time.monotonic() < limit:
                        time.sleep(_POLL_S)
                finally:
                    ranks.end()
            _log_other_ranks(ranks, end, plan.folder)
            return replace(end, signals=frozenset(ranks.signals))
    except (KeyboardInterrupt, Stopped) as error:
        return run_error.of_error(error, 0)


def save_plan(plan: RunPlan, folder: Path) -> None:
    """Write `plan` to `folder` for the ranks, which only the user can read. Touches the disk.

    Without warnings: they have been shown.
    """
    plain = replace(plan, resolved=replace(plan.resolved, warnings=()))
    content = TypeAdapter(RunPlan).dump_python(plain, mode="json")
    write_file(folder / PLAN, json.dumps(content).encode())


def without_report(rank: int, code: int, output: str, forwarded: Collection[int]) -> RunEnd:
    """The end of a rank with exit code `code` that reported none; `output` is what it printed last.

    A rank that died of a forwarded signal during its start-up was stopped.
    """
    if -code in forwarded or (code == exit_codes.INTERRUPTED and signal.SIGINT in forwarded):
        stop = KeyboardInterrupt() if signal.SIGINT in forwarded else Stopped("a signal")
        return run_error.of_error(stop, rank)
    status = f"exit code {code} without a report"
    if code < 0:
        status = f"killed by {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        status += " (often because the machine was out of memory)"
    text = FAULTS["dead_rank"].seen.format(rank=rank, host=socket.gethostname(), status=status)
    return run_end.build(
        "killed", rank, f"error: {text}", output, fault=recognized(output) or "dead_rank"
    )


def stacks_file(folder: Path, rank: int) -> Path:
    """The file for the stacks of a rank that a fatal signal ends."""
    return folder / f"rank-{rank}.stacks"


def _watch(ranks: RankProcesses) -> RunEnd:
    """Wait for the first failure, or for the agreed end of all ranks."""
    lost_since: float | None = None
    while ranks.signals.count(signal.SIGINT) < 2:  # the second Ctrl-C ends them at once
        ranks.forward_signals()
        is_over = ranks.have_ended()
        failure = ranks.first_failure()
        if failure and (is_over or failure.kind != "peer lost"):
            return failure
        if failure:
            # The lost peer reports the reason when its process has ended.
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > _GRACE_S:
                return _frozen(ranks) or failure
        elif is_over:
            return ranks.ends[0]
        time.sleep(_POLL_S)
    return run_end.build(
        "stopped",
        0,
        "ended at once; earlier checkpoints are kept",
        exit_code=exit_codes.INTERRUPTED,
    )


def _frozen(ranks: RankProcesses) -> RunEnd | None:
    """The end of a rank that others have lost but that continues, with its stacks; None: none does.

    The rank is asked for its stacks with SIGABRT, which ends it.
    """
    for rank, process in enumerate(ranks.processes):
        if rank in ranks.ends:
            continue
        state = psutil.Process(process.pid).status()
        process.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STACK_S)
        text = FAULTS["timeout"].seen.format(
            rank=rank, host=socket.gethostname(), process=process.pid, state=state
        )
        file = stacks_file(ranks.folder, rank)
        stacks = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        return run_end.build("failed", rank, f"error: {text}", stacks, fault="timeout")
    return None


def _log_other_ranks(ranks: RankProcesses, shown: RunEnd, run: Path | None) -> None:
    """Append the output and tracebacks of ranks other than 0 to the log of the run.

    Except for invalid input: then nothing is written, least of all to a resumed run.
    """
    if not run or not run.is_dir() or shown.kind == "invalid input":
        return
    for rank in range(len(ranks.processes)):
        end = ranks.ends.get(rank)
        text = ranks.output(rank)
        if end and end.rank != shown.rank:
            text = f"{text}\n{end.text}\n{end.trace}".strip()
        if text:
            run_folder.append_log(run, f"[rank {rank}]\n{text}")
