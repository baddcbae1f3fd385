"""What to do about a run: what was seen, the likely cause, and the next command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from launcher.base.diagnostics import from_here
from launcher.report import facts
from launcher.report.events import text_of
from launcher.report.run_record import RunRecord
from launcher.run.execute import next_command
from launcher.run_folder import run_folder
from training.logging.quantities import real

Row = tuple[str, ...]
_LIMIT_EVENTS = frozenset(
    ("limit_exceeded_at_start", "throttled", "limit_given_up", "pressure", "disk_filling")
)
_CAUSES: Mapping[str, str] = {
    "ram": "this run and the other programs of the machine use more memory than the limit",
    "swap": "the programs of the machine do not fit in its memory",
    "gpu": "other programs on the GPU use more of its memory than the limit",
    "cpu": "other programs, or more threads and loader workers than there are cores",
    "disk": "checkpoints, caches or other files fill the disk",
    "temperature": "the machine is not cooled enough for this load",
}
_HELP: Mapping[str, str] = {"disk": "free some space", "temperature": "let the machine cool"}


def table(runs: Sequence[RunRecord]) -> tuple[Row, list[Row]]:
    """Head and rows of the section "What to do"; of several runs, a healthy one has no row."""
    head = ("seen", "likely cause", "next")
    if len(runs) > 1:
        return ("run", *head), [(run.name, *row) for run in runs for row in rows(run)]
    found = rows(runs[0])
    if not found and runs[0].result.get("status") == "completed":
        return ("seen", "gain", "next"), [healthy(runs[0])]
    return head, found


def rows(run: RunRecord) -> list[Row]:
    """The faults that the run found, the limits it exceeded, and its end if it is not complete."""
    advice = [
        tuple(str(event.facts.get(name, "")) for name in ("seen", "cause", "fix"))
        for event in run.events
        if event.kind in ("advice", "warning") and "fault" in event.facts
    ]
    return list(dict.fromkeys([*advice, *_limits(run), *_end(run, bool(advice))]))


def healthy(run: RunRecord) -> Row:
    """A completed run without faults: that it has none, what training gained, the next command."""
    best = run.result.get("best") or {}
    points = run.evaluations.get(best.get("metric", ""), [])
    first, value = points[0] if points else (0, None)
    gain = ""
    if value is not None and first < best["step"]:
        gain = f"{best['metric']} {real(value)} at step {first:,}, "
        gain += f"{real(best['value'])} at step {best['step']:,}"
    shown = Path(from_here(run.folder.absolute()))
    following = next_command(run.folder, shown) or _again(run)
    return "completed, and no fault was found", gain, following


def _limits(run: RunRecord) -> Iterator[Row]:
    """The first event about each limit, as later ones repeat it."""
    seen = set()
    for event in run.events:
        names = event.facts.get("over") or event.facts.get("critical")
        if event.kind not in _LIMIT_EVENTS or not isinstance(names, list):
            continue
        for name in names:
            use = event.facts.get(name)
            if name in _CAUSES and isinstance(use, int | float) and (event.kind, name) not in seen:
                seen.add((event.kind, name))
                higher = min(math.ceil(use) + 5, 100)  # percent, or °C
                first = _HELP.get(name, "end other programs")
                fix = f"{first}, or  {_again(run)} --set limits.{name}={higher}"
                yield f"step {event.step:,}: {text_of(event)}", _CAUSES[name], fix


def _end(run: RunRecord, is_explained: bool) -> Iterator[Row]:
    status, reason = run.result.get("status"), str(run.result.get("reason") or "")
    end = f"{status} at step {run.steps:,}"
    if status == "stopped":
        yield end, reason, _again(run)
    elif status == "failed" and not is_explained:
        log = shlex.quote(from_here(run.folder.absolute() / run_folder.LOG))
        yield f"{end}: {reason}", "not recognized; the log has all messages", f"less {log}"


def _again(run: RunRecord) -> str:
    """The command that resumes the run; without a checkpoint, or once complete, repeats it."""
    lines = dict(facts.commands(run))
    if run.result.get("status") == "completed":
        return lines["repeat"]
    return lines.get("resume", lines["repeat"])
