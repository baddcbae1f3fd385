"""Watched runs as lines of text, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from launcher.report.watched_run import Snapshot
from training.logging import console_text
from training.logging.console_text import render_row
from training.logging.printable import printable
from training.logging.quantities import real
from training.logging.terminal import unwrapped

_KILLED = "no process holds its lock, and it wrote no result"


class WatchScreen:
    """The runs as a renderable of rich: one as its live view, of several two lines each."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._snapshots = snapshots

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """No line wraps."""
        for snapshot in self._snapshots:
            lines = [f"{snapshot.state}  {snapshot.name}", *plain(snapshot).splitlines()[1:]]
            live = snapshot.view if len(self._snapshots) == 1 else None
            for line in lines[:1] if live else lines[:2]:
                yield unwrapped(Text(printable(line)))
            if live:
                yield live
                if snapshot.best is not None:
                    yield unwrapped(Text(lines[-1]))


def plain(snapshot: Snapshot) -> str:
    """A run in a few lines, as a run prints them itself."""
    state = f"killed: {_KILLED}" if snapshot.state == "killed" else snapshot.state
    end = f"; {snapshot.reason}" if snapshot.reason else ""
    lines = [render_row("run", f"{snapshot.name}, {state}{end}")]
    if (view := snapshot.view) is None:
        return lines[0]
    if view.position.last is not None:
        usage = console_text.render_usage(view.usage)
        lines.append(console_text.render_step(view.position.last, view.position, view.units, usage))
    if view.event is not None:
        lines.append(render_row("last", view.event))
    if (best := snapshot.best) is not None:
        text = f"{best['metric']} {real(float(best['value']))} at step {best['step']}"
        lines.append(render_row("best", text))
    return "\n".join(lines)


def as_json(snapshot: Snapshot) -> Mapping[str, Any]:
    """A run for programs."""
    facts: dict[str, Any] = {"folder": snapshot.name, "state": snapshot.state}
    facts |= {"reason": snapshot.reason, "best": snapshot.best}
    if (view := snapshot.view) is None:
        return {**facts, "step": None, "total_steps": None}
    position = view.position
    return {
        **facts,
        "step": position.step,
        "total_steps": position.total_steps,
        "elapsed_s": position.elapsed_s,
        "eta_s": position.remaining_s,
        "last_step": None if position.last is None else asdict(position.last),
        "units": view.units,
        "usage_percent": view.usage,
        "last_event": view.event,
    }
