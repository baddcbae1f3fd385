"""Reports of how ranks ended."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from pydantic import ConfigDict, TypeAdapter

from launcher.base import environment, exit_codes
from launcher.base.diagnostics import Diagnostic, FetchError, SettingsError, counted, render
from launcher.base.redaction import redact_variables
from launcher.base.signals import Stopped
from launcher.config.provenance import Resolved
from training.storage import StorageError, atomic_write

if TYPE_CHECKING:
    from launcher.run.job_spec import Job
    from training.resources.oom import BatchSizes

Kind = Literal[
    "ended", "stopped", "invalid input", "failed", "out of memory", "killed", "fenced", "peer lost"
]
"""How a rank ended. ended: normally, as all ranks agreed; stopped: by a signal before anything was
saved; invalid input: settings or data; failed: an error of the program or the run; out of memory:
on the host or a device; killed: without a report; fenced: a later generation of the job has claimed
the run; peer lost: this rank only noticed that another rank was gone."""
_LOST_PEER = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|remote process|socket ?timeout"
    r"|timed out waiting|timeout caused pair closure"
    r"|nccl.*(abort|remote error)|store.*(closed|timed? ?out)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RankReport:
    """How one rank ended."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)
    kind: Kind
    exit_code: int
    rank: int
    host: str
    at: float
    """Seconds since the epoch."""
    text: str = ""
    """The message for the user."""
    trace: str = ""
    outcome: Mapping[str, Any] | None = None
    """The fields of training.callbacks.base.Outcome."""
    micro_batch: int | None = None
    """The micro-batch that ran out of memory; None: that of the settings, or it did not."""
    fault: str | None = None
    """Its name in launcher.run.faults; None: unknown, or the text has its fix."""
    diagnostics: Sequence[Diagnostic] = ()
    """What is wrong with the settings or the data; `text` renders them."""
    cause: BaseException | None = field(default=None, compare=False)
    """The exception that ended a rank of this process; not saved."""

    def save(self, folder: Path) -> None:
        """Write the report to `folder` for the supervisor, atomically. Touches the disk."""
        content = TypeAdapter(RankReport).dump_json(self, exclude={"cause"}, fallback=str)
        atomic_write(_path(folder, self.rank), content)


def load(folder: Path, rank: int) -> RankReport | None:
    """The report that `rank` saved in `folder`; None: it has not, or died before."""
    try:
        return TypeAdapter(RankReport).validate_json(_path(folder, rank).read_bytes())
    except FileNotFoundError:
        return None


def _path(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


def stacks_file(folder: Path, rank: int) -> Path:
    """The file for the stacks of a rank that a fatal signal ends."""
    return folder / f"rank-{rank}.stacks"


def build_report(
    kind: Kind, exit_code: int, rank: int, text: str, trace: str = "", **parts: Any
) -> RankReport:
    """The report of `rank` on this host, now, without secrets of the environment."""
    variables = environment.variables()
    text, trace = (redact_variables(part, variables) for part in (text, trace))
    parts["diagnostics"] = [
        replace(one, **{k: redact_variables(v, variables) for k, v in vars(one).items() if type(v) is str})
        for one in parts.get("diagnostics", ())
    ]
    host = socket.gethostname()
    return RankReport(kind, exit_code, rank, host, time.time(), text, trace, **parts)


def ended(outcome: Mapping[str, Any], rank: int) -> RankReport:
    """The report of a rank that ended as all ranks agreed; the run has shown the outcome itself."""
    code = int(outcome["exit_code"])
    text = f"error: {outcome['reason']}" if code == exit_codes.FAILURE else ""
    return build_report("ended", code, rank, text, outcome=outcome, fault=outcome.get("fault"))


def failed(error: BaseException, rank: int) -> RankReport:
    """The report of a rank that `error` ended, without secrets of the environment."""
    return replace(_failed(error, rank), cause=error)


def _failed(error: BaseException, rank: int) -> RankReport:
    def report(kind: Kind, text: str, trace: str = "", **parts: Any) -> RankReport:
        codes = {"invalid input": exit_codes.INVALID_INPUT, "stopped": exit_codes.RUN_AGAIN}
        return build_report(kind, codes.get(kind, exit_codes.FAILURE), rank, text, trace, **parts)

    if isinstance(error, KeyboardInterrupt):
        text = "interrupted before anything was saved"
        return build_report("stopped", exit_codes.INTERRUPTED, rank, text)
    if isinstance(error, Stopped):
        return report("stopped", f"stopped by {error.signal_name} before anything was saved; run again")
    # Imported for an error only: a run that works needs none of them, and a thread that ends one
    # at a signal would wait for an import of the main thread.
    from engines.base import EngineError, PeersMissing
    from launcher.config.errors import about_data
    from launcher.run.faults import recognized
    from launcher.run_folder.fence import FencedOff
    from models.base import DataError
    from training.checkpoint.manifest import CheckpointError
    from training.resources.oom import OutOfMemory
    from training.stop_reason import WorkerDied

    where = f"rank {rank} on {socket.gethostname()}"
    if isinstance(error, EngineError):
        error = SettingsError.of(str(error))
    elif isinstance(error, DataError):
        error = about_data(error)
    if isinstance(error, SettingsError):
        return report("invalid input", str(error), diagnostics=error.diagnostics)
    if isinstance(error, StorageError | CheckpointError | FetchError):
        return report("failed", f"error: {error}", fault=recognized(str(error)))
    if isinstance(error, WorkerDied):
        text = str(error) if str(error).startswith("rank ") else f"{where}: {error}"
        return report("failed", f"error: {text}", fault=recognized(str(error)))
    if isinstance(error, FencedOff):
        return report("fenced", f"error: {error}")
    if isinstance(error, OutOfMemory):
        text = f"error: {where} {error}"
        return report("out of memory", text, micro_batch=error.micro_batch)
    trace = "".join(traceback.format_exception(error))
    message = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, PeersMissing):
        return report("peer lost", f"error: {error}", trace)
    if isinstance(error, RuntimeError | OSError) and _LOST_PEER.search(message):
        return report("peer lost", f"error: {where} lost another rank", trace)
    text = f"error: {where} failed: {message}"
    return report("failed", text, trace, fault=recognized(message))


def without_report(rank: int, code: int, output: str, forwarded: set[int]) -> RankReport:
    """The report of a rank that ended with exit code `code` without one; see `first_failure`."""
    if -code in forwarded or (code == exit_codes.INTERRUPTED and signal.SIGINT in forwarded):
        stop = KeyboardInterrupt() if signal.SIGINT in forwarded else Stopped("a signal")
        return failed(stop, rank)
    status = f"exit code {code} without a report"
    if code < 0:
        status = f"killed by {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        status += " (often because the machine was out of memory)"
    return killed(rank, status, output)


def killed(rank: int, status: str, output: str) -> RankReport:
    """The report for a rank that wrote none; `output` is what it printed last."""
    from launcher.run.faults import FAULTS, recognized

    text = FAULTS["dead_rank"].seen.format(rank=rank, host=socket.gethostname(), status=status)
    fault = recognized(output) or "dead_rank"
    return build_report("killed", exit_codes.FAILURE, rank, f"error: {text}", output, fault=fault)


def out_of_memory(report: RankReport, kills: int, batches: BatchSizes) -> RankReport:
    """`report` as one of memory that ran out, if the kernel killed processes during the run.

    `kills` is how many; a rank that it kills cannot report. Other ends stay as they are.
    """
    if kills <= 0 or report.kind not in ("killed", "failed", "peer lost"):
        return report
    from training.resources.oom import OutOfMemory

    cause = f"the kernel killed {counted(kills, 'process')}"
    if report.fault == "dead_worker":
        cause = f"{cause}; {report.text.removeprefix('error: ')}"
    text = f"error: rank {report.rank} on {report.host} {OutOfMemory(MemoryError(cause), batches)}"
    return replace(report, kind="out of memory", text=text, fault=None)


def explained(report: RankReport, resolved: Resolved, folder: Path) -> RankReport:
    """`report` with the likely cause and the next command, if its fault is known.

    Reads the disk.
    """
    if report.kind == "invalid input":
        from launcher.config.errors import as_typed

        fixed = [
            replace(one, fix=one.fix and as_typed(one.fix, resolved.values)) for one in report.diagnostics
        ]
        return replace(report, text=render(fixed), diagnostics=fixed)
    if report.fault is None:
        return report
    from launcher.run import faults

    fault = faults.FAULTS[report.fault]
    fix = fault.fix.format(**faults.commands(resolved, folder))
    lines = [report.text, f"  {'cause':<12}  {fault.cause}", f"  {'fix':<12}  {fix}"]
    return replace(report, text="\n".join(lines), fault=None)


def interrupted_twice() -> RankReport:
    """The report of a run that a second Ctrl-C ended at once."""
    text = "ended at once; earlier checkpoints are kept"
    return build_report("stopped", exit_codes.INTERRUPTED, 0, text)


def exit_now(code: int) -> NoReturn:
    """Exit at once, so that peers see the connection close and do not wait for a time-out."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_hung(job: Job, rank: int, reason: str) -> NoReturn:
    """End this rank at once, from any thread, with the stack of its hanging main thread.

    `reason` follows `rank 1 on HOST`, for example `waited 600 s for its data`. The supervisor shows
    it before reports of other ranks; without a supervisor it is printed here.
    """
    from launcher.run.faults import recognized

    main = threading.main_thread().ident
    frame = None if main is None else sys._current_frames().get(main)
    stack = "" if frame is None else "".join(traceback.format_stack(frame))
    text = f"error: rank {rank} on {socket.gethostname()} {reason}"
    trace = f"stack of the main thread:\n{stack}"
    fault = recognized(text)
    report = build_report("failed", exit_codes.FAILURE, rank, text, trace, fault=fault)
    if job.reports is not None:
        report.save(job.reports)
    else:
        print(f"{report.text}\n{report.trace}", file=sys.stderr)
        job.log(f"{report.text}\n{report.trace}")
    exit_now(exit_codes.FAILURE)
