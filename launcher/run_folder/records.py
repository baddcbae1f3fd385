"""Reading of result.json and metrics.jsonl; an error names the damaged file and line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.run_folder.run_folder import METRICS, RESULT


class InvalidRecord(SettingsError):
    """A file of a run folder is not as the run wrote it, or cannot be read."""


def read_result(folder: Path) -> Mapping[str, Any] | None:
    """The result.json of the run in `folder`; None: it has not ended. Reads the disk.

    Raises InvalidRecord.
    """
    path = folder / RESULT
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    result = parse_object(path, content)
    if not isinstance(result.get("status"), str):
        raise _damaged(path, "it has no status")
    return result


def parse_object(path: Path, content: str | bytes) -> dict[str, Any]:
    """The JSON object in `content`, read from `path`. Raises InvalidRecord."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _damaged(path, "not a JSON object")
    return found


def metrics_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl, without half a line at its end, which a kill left.

    Reads the disk. Raises InvalidRecord at the first other line.
    """
    path = folder / METRICS
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n") and (found := _metrics_line(path, number, line)) is not None:
                yield found


def check(folder: Path) -> Mapping[str, Any] | None:
    """Check result.json and metrics.jsonl of a run; the result as read_result. Reads the disk.

    Raises InvalidRecord.
    """
    result = read_result(folder)
    for _ in metrics_lines(folder):
        pass
    return result


def _metrics_line(path: Path, number: int, content: bytes) -> dict[str, Any] | None:
    """One line; None: it is of another program. Raises InvalidRecord."""
    try:
        line = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON: {error}", number) from error
    if isinstance(line, dict) and not {"kind", "step"} & set(line):
        return None
    if not isinstance(line, dict) or line.get("kind") not in ("train", "eval"):
        raise _damaged(path, "not an object of kind train or eval", number)
    if type(line.get("step")) is not int:
        raise _damaged(path, "it has no step", number)
    if line["kind"] == "eval" and not isinstance(line.get("metrics"), dict):
        raise _damaged(path, "it has no metrics", number)
    return line


def _damaged(path: Path, reason: str, line: int | None = None) -> InvalidRecord:
    where, quoted = str(path), shlex.quote(str(path))
    fix = f"rm {quoted}  (the run then counts as one that has not ended)"
    if line is not None:
        where, fix = f"{path}:{line}", f"sed -i {line}d {quoted}  (removes the line)"
    allowed = "the file as the run wrote it"
    message = f"{where} is damaged: {reason}"
    return InvalidRecord(
        [Diagnostic(message, value=str(path), where=where, allowed=allowed, fix=fix)]
    )


def _unreadable(path: Path, error: OSError) -> InvalidRecord:
    message = f"{path} cannot be read: {error.strerror or error}"
    fix = f"chmod a+r {shlex.quote(str(path))}  as its owner"
    fix_line = fix if isinstance(error, PermissionError) else None
    return InvalidRecord([Diagnostic(message, value=str(path), where=str(path), fix=fix_line)])
