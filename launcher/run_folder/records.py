"""Reading of result.json, metrics.jsonl and events.jsonl, also while a run writes them."""

from __future__ import annotations

import heapq
import os
import shlex
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from launcher.base import environment
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.base.redaction import redact_variables
from launcher.run_folder.run_folder import EVENTS, METRICS, RESULT, check_regular
from training.storage import lines_of, open_to_read, parse_json, read_regular


class InvalidRecord(SettingsError):
    """A file of a run folder is not as the run wrote it, or cannot be read."""


def read_result(folder: Path) -> Mapping[str, Any] | None:
    """The result.json of the run in `folder`; None: it has not ended. Reads the disk.

    Raises InvalidRecord.
    """
    path = folder / RESULT
    result = read_object(path)
    if result is None:
        return None
    if not isinstance(result.get("status"), str):
        raise _damaged(path, "it has no status")
    return result


def read_object(path: Path, *, is_redacted: bool = False) -> dict[str, Any] | None:
    """The JSON object in the file `path`; None: there is no file. Reads the disk.

    `is_redacted`: without secrets of the environment. Raises InvalidRecord.
    """
    try:
        content = read_regular(path)
        if is_redacted:
            text = content.decode(errors="replace")
            content = redact_variables(text, environment.variables()).encode()
        parsed = parse_json(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise _damaged(path, f"not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise _damaged(path, "not a JSON object")
    return parsed


def metrics_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl, without half a line at its end, which a kill left, and without
    lines of other programs.

    Reads the disk. Raises InvalidRecord at the first damaged line.
    """
    path = folder / METRICS
    try:
        file = open_to_read(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        for number, content in enumerate(lines_of(file), start=1):
            try:
                line = parse_json(content)
            except ValueError as error:
                raise _damaged(path, f"not JSON: {error}", number) from error
            if isinstance(line, dict) and not {"kind", "step"} & set(line):
                continue
            if not isinstance(line, dict) or line.get("kind") not in ("train", "eval"):
                raise _damaged(path, "not an object of kind train or eval", number)
            if type(line.get("step")) is not int:
                raise _damaged(path, "it has no step", number)
            if line["kind"] == "eval" and not isinstance(line.get("metrics"), dict):
                raise _damaged(path, "it has no metrics", number)
            yield line


def check(folder: Path) -> Mapping[str, Any] | None:
    """Check result.json, metrics.jsonl and the kinds of all files; the result as read_result.

    Reads the disk. Raises InvalidRecord, and SettingsError for a link.
    """
    check_regular(folder)
    result = read_result(folder)
    for _ in metrics_lines(folder):
        pass
    return result


def _damaged(path: Path, reason: str, line: int | None = None) -> InvalidRecord:
    where, quoted = str(path), shlex.quote(str(path))
    fix = f"rm {quoted}  (the run then counts as one that has not ended)"
    if line is not None:
        where, fix = f"{path}:{line}", f"sed -i {line}d {quoted}  (removes the line)"
    message, allowed = f"{where} is damaged: {reason}", "the file as the run wrote it"
    parts: dict[str, Any] = {"where": where, "allowed": allowed, "fix": fix}
    return InvalidRecord([Diagnostic(message, value=str(path), **parts)])


def _unreadable(path: Path, error: OSError) -> InvalidRecord:
    message = f"{path} cannot be read: {error.strerror or error}"
    fix = f"chmod a+r {shlex.quote(str(path))}  as its owner"
    fix_line = fix if isinstance(error, PermissionError) else None
    return InvalidRecord([Diagnostic(message, value=str(path), where=str(path), fix=fix_line)])


INVALID_LINE = (KeyError, TypeError, ValueError, AttributeError)
"""Raised for a line of another version, or of a damaged disk."""
_PARSED_BYTES, _NEWEST_BYTES = 8_000_000, 1_000_000
"""About how much of many lines is parsed; the newest are parsed each."""


class GrowingFile:
    """A JSON Lines file that others append to: each line once, in order.

    A resumed generation replaces the file by a copy without the lines that it will write again;
    those lines are returned again. Of lines that were returned, only the hashes stay in memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashes = array("q")
        self._file, self._end, self._last = 0, 0, b""
        """Inode, the end of the lines that were returned, and the last of them."""

    def new_lines(self) -> Iterator[dict[str, Any]]:
        """The complete lines since the last call. Reads the disk."""
        return (content for line, _ in self.read() if (content := _object(line)) is not None)

    def read(self) -> Iterator[tuple[bytes, int]]:
        """Each complete line since the last call, and the bytes after it. Reads the disk."""
        with suppress(OSError), open_to_read(self._path) as file:
            stat = os.fstat(file.fileno())
            file.seek(self._end - len(self._last))
            if stat.st_ino != self._file or file.read(len(self._last)) != self._last:
                # Replaced or cut: go to the first line that was not returned before.
                same, self._end, self._last, self._file = 0, 0, b"", stat.st_ino
                file.seek(0)
                for before, line in zip(self._hashes, lines_of(file), strict=False):
                    if hash(line) != before:
                        break
                    same, self._end, self._last = same + 1, self._end + len(line), line
                del self._hashes[same:]
                file.seek(self._end)
            for line in lines_of(file):
                self._hashes.append(hash(line))
                self._end, self._last = self._end + len(line), line
                yield line, stat.st_size - self._end


class RunLines:
    """The new "train" lines and events of a run; of many lines, only some of the older ones."""

    def __init__(self, folder: Path) -> None:
        self._metrics = GrowingFile(folder / METRICS)
        self._events = GrowingFile(folder / EVENTS)

    def new(self) -> Iterator[dict[str, Any]]:
        """The lines since the last call. Reads the disk."""
        events = list(self._events.new_lines())
        # The metrics of a step precede its events; two generations are not mixed.
        start = max((n for n, e in enumerate(events) if e.get("kind") == "started"), default=-1)
        earlier, later = events[: start + 1], events[start + 1 :]
        yield from earlier
        yield from heapq.merge(self._train_lines(), sorted(later, key=_step), key=_step)

    def _train_lines(self) -> Iterator[dict[str, Any]]:
        every, skipped = 0, 0
        for line, left in self._metrics.read():
            every = every or left // _PARSED_BYTES + 1
            skipped += 1
            if skipped < every and left > _NEWEST_BYTES:
                continue  # parsing takes 6 µs, all else 1 µs
            if (content := _object(line)) is not None and content.get("kind") == "train":
                skipped = 0
                yield content


def known_fields(kind: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `facts` that are fields of the class: a newer version may write more."""
    return {field.name: facts[field.name] for field in fields(kind) if field.name in facts}


def _step(line: Mapping[str, Any]) -> int:
    step = line.get("step")
    return step if isinstance(step, int) else 0


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
