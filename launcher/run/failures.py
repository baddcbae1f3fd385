"""How one rank of a run ended: what it tells its supervisor, and what a person reads of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from engines.base import EngineError, PeersMissing
from launcher.base import environment, exit_codes
from launcher.base.diagnostics import SettingsError
from launcher.base.redaction import redact_variables
from launcher.download.transfer import FetchError
from launcher.run.job_spec import Job
from launcher.run_folder import run_folder
from launcher.run_folder.fence import FencedOff
from models.base import DataError
from training.checkpoint.manifest import CheckpointError
from training.resources.oom import OutOfMemory
from training.storage import StorageError, atomic_write

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing import SubprocessContext

Kind = Literal[
    "ended", "stopped", "words", "fault", "out of memory", "killed", "fenced", "peer lost"
]
"""ended: in good order, as the ranks agreed; stopped: by a signal, before there was anything to
save; words: the person's settings or data are wrong; fault: of the program or the run; out of
memory: of the host or of a device, while it ran; killed: it died without a word; fenced: a later
generation of its job has taken over; peer lost: this rank only saw that another one had gone."""
_LOST_PEER = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|remote process|socket ?timeout"
    r"|nccl.*(abort|remote error)|store.*(closed|timed? ?out)",
    re.IGNORECASE,
)


class Stopped(BaseException):
    """A signal came before there was anything to save."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


@dataclass(frozen=True)
class Report:
    """The end of one rank."""

    kind: Kind
    exit_code: int
    rank: int
    host: str
    at: float
    """Seconds since the epoch."""
    text: str = ""
    """What a person is told."""
    trace: str = ""
    outcome: Mapping[str, Any] | None = None
    """The fields of training.callbacks.base.Outcome."""
    cause: BaseException | None = field(default=None, compare=False)
    """What ended a rank of this very process; stays in it."""

    def save(self, folder: Path) -> None:
        """Leave it in `folder` for the supervisor, whole or not at all. Touches the disk."""
        path = _path(folder, self.rank)
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "cause"}
        atomic_write(path, json.dumps(told).encode())


def load(folder: Path, rank: int) -> Report | None:
    """What `rank` left in `folder`; None: nothing yet, or it died before it could."""
    try:
        return Report(**json.loads(_path(folder, rank).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def ended(outcome: Mapping[str, Any], rank: int) -> Report:
    """The report of a rank whose run came to its agreed end, of which the run itself has told."""
    code = int(outcome["exit_code"])
    text = f"error: {outcome['reason']}" if code == exit_codes.FAILURE else ""
    return _report("ended", code, rank, text, outcome=outcome)


def failed(fault: BaseException, rank: int) -> Report:
    """The report of a rank that `fault` ended; secrets of the environment are cut out."""
    return replace(_failed(fault, rank), cause=fault)


def _failed(fault: BaseException, rank: int) -> Report:
    if isinstance(fault, SettingsError):
        return _report("words", exit_codes.INVALID_INPUT, rank, str(fault))
    if isinstance(fault, DataError | EngineError):
        return _report("words", exit_codes.INVALID_INPUT, rank, f"error: {fault}")
    if isinstance(fault, StorageError | CheckpointError | FetchError):
        return _report("fault", exit_codes.FAILURE, rank, f"error: {fault}")
    if isinstance(fault, FencedOff):
        return _report("fenced", exit_codes.FAILURE, rank, f"error: {fault}")
    if isinstance(fault, KeyboardInterrupt):
        text = "interrupted before there was anything to save"
        return _report("stopped", exit_codes.INTERRUPTED, rank, text)
    if isinstance(fault, Stopped):
        text = f"stopped by {fault.signal_name} before there was anything to save; run me again"
        return _report("stopped", exit_codes.RUN_AGAIN, rank, text)
    if isinstance(fault, OutOfMemory):
        text = f"error: rank {rank} on {socket.gethostname()} {fault}"
        return _report("out of memory", exit_codes.FAILURE, rank, text)
    trace = "".join(traceback.format_exception(fault))
    said = "".join(traceback.format_exception_only(fault)).strip()
    if isinstance(fault, PeersMissing):
        return _report("peer lost", exit_codes.FAILURE, rank, f"error: {fault}", trace)
    if isinstance(fault, RuntimeError | OSError) and _LOST_PEER.search(said):
        text = f"error: rank {rank} on {socket.gethostname()} lost another rank"
        return _report("peer lost", exit_codes.FAILURE, rank, text, trace)
    text = f"error: rank {rank} on {socket.gethostname()} failed: {said}"
    return _report("fault", exit_codes.FAILURE, rank, text, trace)


def cut_short() -> Report:
    """The report of a run that a second Ctrl-C ended at once."""
    text = "ended at once; what was saved before stays"
    return _report("stopped", exit_codes.INTERRUPTED, 0, text)


def given_up(reason: str, rank: int) -> Report:
    """The report of a rank that hangs, by another of its threads; `reason` follows its name."""
    main = threading.main_thread().ident
    frame = None if main is None else sys._current_frames().get(main)
    trace = "" if frame is None else "".join(traceback.format_stack(frame))
    text = f"error: rank {rank} on {socket.gethostname()} {reason}"
    return _report("fault", exit_codes.FAILURE, rank, text, f"its main thread was here:\n{trace}")


def died(rank: int, status: str, last_words: str) -> Report:
    """The report that a rank could not write itself; `last_words` is what it printed last."""
    text = f"error: rank {rank} on {socket.gethostname()} died: {status}"
    return _report("killed", exit_codes.FAILURE, rank, text, last_words)


def _report(
    kind: Kind,
    exit_code: int,
    rank: int,
    text: str,
    trace: str = "",
    outcome: Mapping[str, Any] | None = None,
) -> Report:
    return Report(
        kind=kind,
        exit_code=exit_code,
        rank=rank,
        host=socket.gethostname(),
        at=time.time(),
        text=redact_variables(text, environment.variables()),
        trace=redact_variables(trace, environment.variables()),
        outcome=outcome,
    )


def _path(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


_LAST_BYTES = 4000
_TURN = {
    "killed": 0,
    "words": 1,
    "fault": 1,
    "out of memory": 1,
    "stopped": 2,
    "fenced": 2,
    "peer lost": 3,
}
_CAUSES = {"SIGKILL": "often the machine's memory had run out"}


def first(
    codes: Mapping[int, int | None],
    context: SubprocessContext,
    folder: Path,
    passed_on: set[int],
) -> Report | None:
    """The report of the rank that failed first; None: none did. `codes` are their exit codes.

    A rank that was killed wrote no report and goes first, for its peers notice only afterwards;
    then the earliest report of a failure; then of a stop; then ranks that merely lost a peer.
    `passed_on` holds the signals that we sent ourselves: who died of one before it could listen
    was stopped, not broken.
    """
    found = []
    for rank, code in codes.items():
        written = load(folder, rank)
        if written is not None and written.kind != "ended":
            found.append((_TURN[written.kind], written.at, written))
        elif written is None and code is not None:
            found.append(_died(rank, code, context, passed_on))
    return min(found, key=lambda one: one[:2])[2] if found else None


def keep_last_words(
    context: SubprocessContext, folder: Path, ending: Report, run: Path | None
) -> None:
    """Append to the run's log what ranks other than 0 printed, and their tracebacks.

    Where words were wrong nothing is written, least of all beside a run that goes on.
    """
    if run is None or not run.is_dir() or ending.kind == "words":
        return
    for rank in context.pids():
        written = load(folder, rank)
        texts = [_output(context, rank)]
        if written is not None and written.rank != ending.rank:
            texts += [written.text, written.trace]
        for text in filter(None, (text.strip() for text in texts)):
            run_folder.log(run, f"[rank {rank}]\n{text}")


def _died(
    rank: int, code: int, context: SubprocessContext, passed_on: set[int]
) -> tuple[int, float, Report]:
    if -code in passed_on or (code == exit_codes.INTERRUPTED and signal.SIGINT in passed_on):
        stop = KeyboardInterrupt() if signal.SIGINT in passed_on else Stopped("a signal")
        return _TURN["stopped"], 0.0, failed(stop, rank)
    # Aborting is what communication libraries do when another rank has gone.
    turn = _TURN["peer lost" if code == -signal.SIGABRT else "killed"]
    return turn, 0.0, died(rank, _status(code), _output(context, rank))


def _status(code: int) -> str:
    if code >= 0:
        return f"exit code {code}, without a word"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (f" ({_CAUSES[name]})" if name in _CAUSES else "")


def _output(context: SubprocessContext, rank: int) -> str:
    """What a rank other than 0 printed last; rank 0 prints on the terminal."""
    texts = []
    for path in (context.stdouts[rank], context.stderrs[rank]):
        if path:
            texts.append(Path(path).read_bytes()[-_LAST_BYTES:].decode(errors="replace"))
    return "\n".join(texts).strip()


def exit_now(code: int) -> NoReturn:
    """Leave at once, so that peers see the connection close and never wait for a time-out."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def give_up(job: Job, rank: int, reason: str) -> NoReturn:
    """End this rank at once and from any thread, blamed for what its main thread hangs in.

    `reason` reads on after `rank 1 on HOST`: such as `waited 600 s for its data`. The supervisor
    shows it before what the others say; where there is none, it is told here.
    """
    ending = given_up(reason, rank)
    if job.reports is not None:
        ending.save(job.reports)
    else:
        print(f"{ending.text}\n{ending.trace}", file=sys.stderr)
        if job.folder is not None:
            run_folder.log(job.folder, f"{ending.text}\n{ending.trace}")
    exit_now(exit_codes.FAILURE)
