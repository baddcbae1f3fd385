"""The runs of a job array: the further arguments of each, and which lines are submitted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from launcher.base.diagnostics import SettingsError
from launcher.config.command_line import RUN, CommandLine, parse
from launcher.config.options import BY_FLAG
from launcher.submit.options import ARRAY, SUBMIT, SWEEP, run_arguments

_PART = re.compile(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?")
_MOST = 100_000
"""The largest index; Slurm's own limit, MaxArraySize, is lower on almost every cluster."""


@dataclass(frozen=True)
class Element:
    """One run of an array."""

    index: int
    arguments: Sequence[str]
    """The arguments of its line, which follow those of all elements."""
    where: str
    """The file and line of the arguments."""
    command_line: CommandLine
    """All its arguments; `out` is from the line only."""


def read(command_line: CommandLine, array: str | None) -> tuple[list[Element], str]:
    """The elements, and the limit of concurrent ones as sbatch writes it: `%2`, or nothing.

    Reads the file. Raises SettingsError.
    """
    numbers, _, limit = (array or "").partition("%")
    path, origin = command_line.values.get(SWEEP.flag), f"{ARRAY.flag} {array}"
    wanted = None if array is None else _indices(numbers, origin)
    lines = dict.fromkeys(wanted or (), "") if path is None else _lines(Path(path))
    if missing := [number for number in wanted or () if number not in lines]:
        message, allowed = f"{path} has no line for element {missing[0]}", f"lines {indices(lines)}"
        raise SettingsError.of(message, value=missing[0], where=origin, allowed=allowed)
    shared, elements = run_arguments(command_line.argv), []
    of_all = {option.flag for option in SUBMIT} - set(BY_FLAG)
    for number in wanted or lines:
        where = origin if path is None else f"{path}:{number}"
        try:
            arguments = shlex.split(lines[number])
        except ValueError as error:
            message = f"cannot parse a line of options: {str(error).lower()}"
            raise SettingsError.of(message, value=lines[number], where=where) from error
        if wrong := next((text for text in arguments if text.partition("=")[0] in of_all), None):
            flag, at = wrong.partition("=")[0], f"{where}: {wrong}"
            message = f"{flag} applies to all runs of an array, not to one line"
            fix, allowed = f"submit {flag} …  on the command line", "options of  run"
            raise SettingsError.of(message, value=wrong, where=at, allowed=allowed, fix=fix)
        elements.append(Element(number, arguments, where, parse(RUN, [*shared, *arguments])))
    return elements, f"%{limit}" if limit else ""


def indices(numbers: Iterable[int]) -> str:
    """The value of --array: `1-4,7`."""
    groups = groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    spans = [[number for _, number in group] for _, group in groups]
    return ",".join(f"{span[0]}-{span[-1]}" if span[1:] else f"{span[0]}" for span in spans)


def _lines(path: Path) -> dict[int, str]:
    """The lines of arguments by number from 1, without comments (`#`) and empty lines."""
    where = f"{SWEEP.flag} {path}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        message = f"cannot read {path}: {reason}"
        raise SettingsError.of(message, value=str(path), where=where) from error
    lines = dict(enumerate(text.splitlines(), start=1))
    lines = {number: line for number, line in lines.items() if line.partition("#")[0].strip()}
    if not lines:
        allowed = "one line of options per run, such as  --lr 1e-3 --seed 1"
        raise SettingsError.of(f"{path} is empty", value=str(path), where=where, allowed=allowed)
    return lines


def _indices(numbers: str, where: str) -> list[int]:
    """The indices of a range such as `0-6:2,9`."""
    selected: set[int] = set()
    for part in numbers.split(","):
        match = _PART.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or last < first or last > _MOST:
            message = f"invalid {ARRAY.flag} {numbers!r}"
            allowed = f"a range: 1-8, 0-30:10, 1,4,7 or 1-8%2, up to {_MOST}"
            raise SettingsError.of(message, value=numbers, where=where, allowed=allowed)
        selected.update(range(first, last + 1, int(match[3] or 1)))
    return sorted(selected)
