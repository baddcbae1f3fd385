"""The end of a run by an error, and by memory that ran out."""

from __future__ import annotations

import re
import socket
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import FetchError, SettingsError
from gearshift.launcher.base.signals import Stopped
from gearshift.launcher.run.run_end import Kind, RunEnd, build, exit_now, without_secrets
from gearshift.training.storage import StorageError, disk_error

_LOST_PEER = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|remote process|socket ?timeout"
    r"|timed out waiting|timeout caused pair closure"
    r"|nccl.*(abort|remote error)|store.*(closed|timed? ?out)",
    re.IGNORECASE,
)


def of_error(error: BaseException, rank: int) -> RunEnd:
    """The end of a rank by `error`, without secrets of the environment."""
    if isinstance(error, KeyboardInterrupt):
        text = "interrupted before anything was saved"
        return build("stopped", rank, text, exit_code=exit_codes.INTERRUPTED, cause=error)
    if isinstance(error, Stopped):
        text = f"stopped by {error.signal_name} before anything was saved; run again"
        return build("stopped", rank, text, cause=error)
    # Imported for an error only: a run that works needs none of them, and a thread that ends one
    # at a signal would wait for an import of the main thread.
    from gearshift.engines.base import EngineError, PeersMissing
    from gearshift.launcher.config.errors import about_data
    from gearshift.launcher.run_folder.generations import FencedOff
    from gearshift.models.base import DataError
    from gearshift.training.callbacks.base import WorkerDied
    from gearshift.training.checkpoint.manifest import CheckpointError, CheckpointSetAside
    from gearshift.training.throttle import OutOfMemory

    where = f"rank {rank} on {socket.gethostname()}"
    cause = error
    # Also of a custom task or a library, which has no writer of ours.
    error = disk_error(error) or error
    if isinstance(error, EngineError):
        error = SettingsError.of(str(error))
    elif isinstance(error, DataError):
        error = about_data(error)
    text = str(error)
    if isinstance(error, SettingsError):
        diagnostics = [without_secrets(each) for each in error.diagnostics]
        return build("invalid input", rank, text, diagnostics=diagnostics, cause=cause)
    kind: Kind = "failed"
    trace = ""
    fault = None
    micro_batch = None
    if isinstance(error, WorkerDied):
        if not text.startswith("rank "):
            text = f"{where}: {text}"
        # A bus error is one of /dev/shm.
        fault = "shared_memory" if " by signal 7;" in text else "dead_worker"
    elif isinstance(error, FencedOff):
        kind = "fenced"
    elif isinstance(error, CheckpointSetAside):
        kind = "set aside"
    elif isinstance(error, OutOfMemory):
        kind = "out of memory"
        text = f"{where} {text}"
        micro_batch = error.micro_batch
    elif not isinstance(error, StorageError | CheckpointError | FetchError):
        trace = "".join(traceback.format_exception(error))
        message = "".join(traceback.format_exception_only(error)).strip()
        if isinstance(error, PeersMissing):
            kind = "peer lost"
        elif is_lost_peer(error):
            kind = "peer lost"
            text = f"{where} lost another rank"
        else:
            text = f"{where} failed: {message}"
    return build(
        kind, rank, f"error: {text}", trace, fault=fault, micro_batch=micro_batch, cause=cause
    )


def is_lost_peer(error: BaseException) -> bool:
    """Whether `error` is that of a collective whose other ranks have ended."""
    message = "".join(traceback.format_exception_only(error))
    return isinstance(error, RuntimeError | OSError) and bool(_LOST_PEER.search(message))


def save_and_exit(end: RunEnd, folder: Path) -> NoReturn:
    """Save `end` for the supervisor, if its `folder` is still there, and exit.

    Also after a normal end: gloo threads sometimes abort the interpreter at shutdown. The code is 0
    for every end that all ranks agreed on: the supervisor reads the agreed one.
    """
    with suppress(FileNotFoundError):
        end.save(folder)
    exit_now(exit_codes.DONE if end.kind == "ended" else end.exit_code)
