"""Watched runs as text for a pipe, as JSON, and as one line each of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from launcher.report.watched_run import Snapshot
from training.logging import console_text
from training.logging.console_text import render_row
from training.logging.printable import printable
from training.logging.quantities import amount, real
from training.logging.terminal import unwrapped

_STYLES = {"running": "green", "completed": "bold green", "failed": "bold red", "killed": "red"}
_KILLED = "no process holds its lock, and it wrote no result"


class WatchScreen:
    """The runs as a renderable of rich: one as its live view, several as a table."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._snapshots = snapshots

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The state, the view and the best evaluation; no line wraps."""
        if len(self._snapshots) > 1:
            yield _table(self._snapshots, options)
            return
        for snapshot in self._snapshots:
            state = Text(snapshot.state, style=_STYLES.get(snapshot.state, "bold"))
            state.append(f"  {printable(snapshot.name)}", style="default")
            yield unwrapped(state)
            if snapshot.state == "killed" or snapshot.reason:
                yield unwrapped(Text(printable(snapshot.reason or _KILLED)))
            if snapshot.view is not None:
                yield snapshot.view
            if snapshot.best is not None:
                yield unwrapped(Text(f"best  {_best(snapshot.best)}"))


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
    if snapshot.best is not None:
        lines.append(render_row("best", _best(snapshot.best)))
    return "\n".join(lines)


def as_json(snapshot: Snapshot) -> dict[str, Any]:
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


def _best(best: Mapping[str, Any]) -> str:
    return f"{best['metric']} {real(float(best['value']))} at step {best['step']}"


def _table(snapshots: Sequence[Snapshot], options: ConsoleOptions) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    headings = ["run", "state", "step", "ETA"]
    headings += ["loss", "speed"] if options.max_width >= 60 else []
    headings += ["memory"] if options.max_width >= 90 else []
    for heading in headings:
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for snapshot in snapshots:
        cells = _cells(snapshot)
        table.add_row(*(cells[heading] for heading in headings))
    return table


def _cells(snapshot: Snapshot) -> dict[str, Text]:
    cells = dict.fromkeys(("step", "ETA", "loss", "speed", "memory"), "–")
    if (view := snapshot.view) is not None:
        position = view.position
        cells["step"] = f"{position.step}/{position.total_steps}"
        cells["memory"] = console_text.render_usage(view.usage) or "–"
        if not snapshot.has_ended:
            cells["ETA"] = console_text.render_eta(position).removeprefix("ETA ")
        if position.last is not None:
            cells["loss"] = real(position.last.loss)
            cells["speed"] = f"{amount(position.last.samples_per_s)} samples/s"
    state = Text(snapshot.state, style=_STYLES.get(snapshot.state, ""))
    texts = {name: Text(printable(text)) for name, text in cells.items()}
    return {"run": Text(printable(Path(snapshot.name).name)), "state": state, **texts}
