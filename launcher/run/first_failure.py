"""Which rank failed first, and what the others said."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.base import exit_codes
from launcher.run import failures
from launcher.run.failures import Report
from launcher.run_folder import run_folder

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing import SubprocessContext

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
        written = failures.load(folder, rank)
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
        written = failures.load(folder, rank)
        texts = [_output(context, rank)]
        if written is not None and written.rank != ending.rank:
            texts += [written.text, written.trace]
        for text in filter(None, (text.strip() for text in texts)):
            run_folder.log(run, f"[rank {rank}]\n{text}")


def _died(
    rank: int, code: int, context: SubprocessContext, passed_on: set[int]
) -> tuple[int, float, Report]:
    if -code in passed_on or (code == exit_codes.INTERRUPTED and signal.SIGINT in passed_on):
        stop = KeyboardInterrupt() if signal.SIGINT in passed_on else failures.Stopped("a signal")
        return _TURN["stopped"], 0.0, failures.failed(stop, rank)
    # Aborting is what communication libraries do when another rank has gone.
    turn = _TURN["peer lost" if code == -signal.SIGABRT else "killed"]
    return turn, 0.0, failures.died(rank, _status(code), _output(context, rank))


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
