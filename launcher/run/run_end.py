"""What a rank, or a run, ended with."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from pydantic import ConfigDict, TypeAdapter

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.base.diagnostics import Diagnostic, counted
from gearshift.launcher.base.redaction import redact_variables
from gearshift.launcher.config.provenance import Resolved
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.logging.encoding import encode_bytes
from gearshift.training.storage import atomic_write

if TYPE_CHECKING:
    from gearshift.training.throttle import BatchSizes

Kind = Literal[
    "ended",
    "stopped",
    "invalid input",
    "failed",
    "out of memory",
    "killed",
    "fenced",
    "peer lost",
    "set aside",
]
"""How a rank ended. ended: normally, as all ranks agreed; stopped: by a signal before anything was
saved; invalid input: settings or data; failed: an error of the program or the run; out of memory:
on the host or a device; killed: without a report; fenced: a later generation of the job has claimed
the run; peer lost: this rank only noticed that another rank was gone; set aside: its checkpoint was
damaged, and the next start takes the one before it."""
_CODES = {
    "invalid input": exit_codes.INVALID_INPUT,
    "stopped": exit_codes.RUN_AGAIN,
    "set aside": exit_codes.RUN_AGAIN,
}


@dataclass(frozen=True)
class RunEnd:
    """What a rank ended with; of a run, that of the rank that decided."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)
    kind: Kind
    exit_code: int
    rank: int = 0
    host: str = field(default_factory=socket.gethostname)
    at: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    text: str = ""
    """The message for the user."""
    trace: str = ""
    """The traceback, or what the rank printed last."""
    fault: str | None = None
    """The name of the fault that ended it, of launcher.run.faults; None: its text may tell."""
    outcome: Facts | None = None
    """The fields of training.callbacks.base.Outcome, or of SplitResult; once saved, numbers that
    are not finite are texts, as in result.json."""
    micro_batch: int | None = None
    """The micro-batch that ran out of memory; None: that of the settings, or it did not."""
    diagnostics: Sequence[Diagnostic] = ()
    """What is wrong with the settings or the data; `text` renders them."""
    signals: frozenset[int] = frozenset()
    """The signals that were sent on to the ranks."""
    folder: Path | None = None
    """The run folder; None: it was removed, or this process has none."""
    wants_report: bool = False
    """Whether the page about the run is to be written into its folder."""
    pipeline: Facts | None = None
    """The result of all stages; None: a single run."""
    cause: BaseException | None = field(default=None, compare=False)
    """The exception that ended a rank of this process; not saved."""

    @property
    def result(self) -> Facts:
        """What the end is as JSON; empty: nothing was trained."""
        return self.pipeline or self.outcome or {}

    @property
    def did_nothing(self) -> bool:
        """Whether the run ended before it began to train."""
        return self.exit_code == exit_codes.INVALID_INPUT or self.kind == "stopped"

    def save(self, folder: Path) -> None:
        """Write the end to `folder` for the supervisor, atomically. Touches the disk."""
        content = TypeAdapter(RunEnd).dump_python(
            self, mode="json", exclude={"cause", "outcome"}, fallback=str
        )
        content["outcome"] = self.outcome  # pydantic would write a metric that is NaN as null
        atomic_write(folder / f"rank-{self.rank}.json", encode_bytes(content))


_Record = TypeVar("_Record", RunEnd, Diagnostic)


def load(folder: Path, rank: int) -> RunEnd | None:
    """The end that `rank` saved in `folder`; None: it has not, or died before."""
    try:
        return TypeAdapter(RunEnd).validate_json((folder / f"rank-{rank}.json").read_bytes())
    except FileNotFoundError:
        return None


def build(kind: Kind, rank: int, text: str, trace: str = "", **facts: Any) -> RunEnd:
    """The end of `rank` on this host, now, without secrets of the environment.

    `facts`: further fields of it; the exit code is by default that of its kind.
    """
    facts = {"exit_code": _CODES.get(kind, exit_codes.FAILURE), "diagnostics": [], **facts}
    return without_secrets(RunEnd(kind, rank=rank, text=text, trace=trace, **facts))


def without_secrets(record: _Record) -> _Record:
    """A record whose texts have no secrets of the environment."""
    changes: Json = {
        name: redact_variables(value, environment.variables())
        for name, value in vars(record).items()
        if isinstance(value, str)
    }
    return replace(record, **changes)


def agreed(outcome: Facts, rank: int) -> RunEnd:
    """The end of a rank as all ranks agreed; the run has shown the outcome itself."""
    code = int(outcome["exit_code"])
    text = ""
    if code == exit_codes.FAILURE:
        text = f"error: {outcome['reason']}"
    return build("ended", rank, text, exit_code=code, outcome=outcome, fault=outcome.get("fault"))


def explained(end: RunEnd, resolved: Resolved, folder: Path) -> RunEnd:
    """`end` with the likely cause and the next command, if its fault is known. Reads the disk."""
    if end.kind not in ("failed", "killed", "ended", "out of memory") or not end.text:
        return end
    from gearshift.launcher.run import faults

    if end.kind == "out of memory":  # of the batch that fits
        retry = faults.commands(resolved, folder)["retry"]
        label = f"\n  {'fix':<12}  "
        return replace(end, text=end.text.replace(label, f"{label}{retry} "))

    name = end.fault or (faults.recognized(end.text) if end.kind == "failed" else None)
    if not name:
        return end
    fault = faults.FAULTS[name]
    fix = fault.fix.format(**faults.commands(resolved, folder))
    lines = [end.text]
    for label, text in (("cause", fault.cause), ("fix", fix), ("hint", fault.hint)):
        if text:
            lines.append(f"  {label:<12}  {text}")
    return replace(end, text="\n".join(lines))


def exit_now(code: int) -> NoReturn:
    """Exit at once, so that peers see the connection close and do not wait for a time-out."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def out_of_memory(end: RunEnd, kills: int, batches: BatchSizes) -> RunEnd:
    """`end` as one of memory that ran out, if the kernel killed processes during the run.

    `kills` is how many; a rank that it kills cannot report. Other ends stay as they are.
    """
    if kills <= 0 or end.kind not in ("killed", "failed", "peer lost"):
        return end
    from gearshift.training.throttle import OutOfMemory

    cause = f"the kernel killed {counted(kills, 'process')}"
    if end.fault == "dead_worker":
        cause = f"{cause}; {end.text.removeprefix('error: ')}"
    return replace(
        end,
        kind="out of memory",
        text=f"error: rank {end.rank} on {end.host} {OutOfMemory(MemoryError(cause), batches)}",
    )
