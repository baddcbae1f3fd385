"""The lines of metrics.jsonl and events.jsonl while a run writes them, in order of steps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import takewhile
from pathlib import Path
from typing import Any

from launcher.run_folder import run_folder

INVALID_LINE = (KeyError, TypeError, ValueError, AttributeError)
"""Raised for a line of another version, or of a damaged disk."""


class GrowingFile:
    """A JSON Lines file that others append to: each line once, in order.

    A resumed generation replaces the file by a copy without the lines that it will write again;
    those lines are returned again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashes: list[int] = []
        self._file, self._end, self._last = 0, 0, b""
        """Inode, the end of the lines that were returned, and the last of them."""

    def new_lines(self) -> list[dict[str, Any]]:
        """The complete lines since the last call. Reads the disk."""
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                file.seek(self._end - len(self._last))
                tail = file.read()
                if inode != self._file or not tail.startswith(self._last):
                    file.seek(0)
                    return self._compared(file.read(), inode)
        except OSError:
            return []
        return self._added(tail[len(self._last) :])

    def _compared(self, content: bytes, inode: int) -> list[dict[str, Any]]:
        """The lines of a file that was replaced or cut, from the first one that differs."""
        lines, before = content.split(b"\n")[:-1], self._hashes
        pairs = zip(before, map(hash, lines), strict=False)
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
        kept = sum(len(line) + 1 for line in lines[:same])
        self._hashes, self._file, self._end = before[:same], inode, kept
        self._last = lines[same - 1] + b"\n" if same else b""
        return self._added(content[kept:])

    def _added(self, content: bytes) -> list[dict[str, Any]]:
        lines = content.split(b"\n")[:-1]
        self._hashes += map(hash, lines)
        self._end += sum(len(line) + 1 for line in lines)
        if lines:
            self._last = lines[-1] + b"\n"
        return [found for line in lines if (found := _object(line)) is not None]


class RunLines:
    """The new "train" lines and events of a run, as it wrote them."""

    def __init__(self, folder: Path) -> None:
        self._metrics = GrowingFile(folder / run_folder.METRICS)
        self._events = GrowingFile(folder / run_folder.EVENTS)

    def new(self) -> Iterator[dict[str, Any]]:
        """The lines since the last call. Reads the disk."""
        events = self._events.new_lines()
        # The metrics of a step precede its events; two generations are not mixed.
        start = max((n for n, e in enumerate(events) if e.get("kind") == "started"), default=-1)
        earlier, later = events[: start + 1], events[start + 1 :]
        metrics = [m for m in self._metrics.new_lines() if m.get("kind") == "train"]
        yield from earlier
        yield from sorted([*metrics, *later], key=lambda line: int(line.get("step", 0)))


def known_fields(kind: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `facts` that are fields of the class: a newer version may write more."""
    return {field.name: facts[field.name] for field in fields(kind) if field.name in facts}


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
