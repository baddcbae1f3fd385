"""How one rank of a run ended: what it tells its supervisor, and what a person reads of it."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from engines.base import EngineError, PeersMissing
from launcher.base import environment, exit_codes
from launcher.base.diagnostics import SettingsError
from launcher.base.redaction import redact_variables
from launcher.download.errors import FetchError
from launcher.run_folder.fenced_exit import FencedOff
from models.base import DataError
from training.checkpoint.manifest import CheckpointError
from training.resources.oom import OutOfMemory
from training.storage import StorageError, atomic_write

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
