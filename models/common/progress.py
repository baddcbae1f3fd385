"""Progress of long work on data, on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_S = 10.0


@contextmanager
def shown(work: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Gives a function that takes how much of `total` is done; None: the total is unknown."""
    # rich takes time to import, and most data is read at once.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), Remaining()
    is_live, line_at = console.is_terminal, time.monotonic() + _LINE_S
    with Progress(*columns, console=console, transient=True, disable=not is_live) as bar:
        task = bar.add_task(work, total=total)

        def update(done: int) -> None:
            nonlocal line_at
            bar.update(task, completed=done)
            if not is_live and time.monotonic() > line_at:
                line_at = time.monotonic() + _LINE_S
                rest = "" if total is None else f" of {total:,}"
                left = bar.tasks[0].time_remaining
                about = "" if left is None else f", about {left:.0f} s left"
                print(f"{work}: {done:,}{rest}{about}", file=sys.stderr, flush=True)

        yield update
