"""The runs of a job array: the further arguments of each, and which lines are submitted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config.command_line import RUN, CommandLine, parse
from launcher.config.options import BY_FLAG, STAGE
from launcher.config.provenance import STAGED_MODE
from launcher.submit import options
from launcher.submit.options import run_arguments

_PART = re.compile(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?")
_OF_ALL = {option.flag for option in options.SUBMIT} - set(BY_FLAG)
"""Options of the array as a whole."""
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


def file_of(command_line: CommandLine) -> Path | None:
    """The file of --sweep; None: there is none."""
    name = command_line.values.get(options.SWEEP.flag)
    return None if name is None else Path(name)


def read(command_line: CommandLine, array: str | None) -> tuple[list[Element], str]:
    """The elements, and the limit of concurrent ones as sbatch writes it: `%2`, or nothing.

    Reads the file. Raises SettingsError.
    """
    numbers, _, limit = (array or "").partition("%")
    path = file_of(command_line)
    origin = f"{options.ARRAY.flag} {array}"
    if path is None:
        lines = dict.fromkeys(_indices(numbers, origin), "")
    else:
        lines = _lines(path)
        if array is not None:
            wanted = _indices(numbers, origin)
            if missing := [number for number in wanted if number not in lines]:
                message = f"{path} has no line for element {missing[0]}"
                allowed = f"lines {indices(list(lines), '')}"
                raise SettingsError.of(message, value=missing[0], where=origin, allowed=allowed)
            lines = {number: lines[number] for number in wanted}
    shared = run_arguments(command_line.argv)
    elements = []
    for number, text in lines.items():
        where = origin if path is None else f"{path}:{number}"
        try:
            arguments = shlex.split(text)
        except ValueError as error:
            message = f"cannot parse a line of options: {str(error).lower()}"
            raise SettingsError.of(message, value=text, where=where) from error
        if wrong := [a for a in arguments if a.partition("=")[0] in _OF_ALL]:
            flag = wrong[0].partition("=")[0]
            raise SettingsError.of(
                f"{flag} applies to all runs of an array, not to one line",
                value=wrong[0],
                where=f"{where}: {wrong[0]}",
                allowed="options of  run",
                fix=f"submit {flag} …  on the command line",
            )
        elements.append(Element(number, arguments, where, parse(RUN, [*shared, *arguments])))
    return elements, f"%{limit}" if limit else ""


def indices(numbers: Sequence[int], limit: str) -> str:
    """The value of --array: `1-4,7%2`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    texts = [f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts]
    return ",".join(texts) + limit


def warnings(command_line: CommandLine, elements: Sequence[Element]) -> Iterator[Diagnostic]:
    """A warning if all elements would train the same model."""
    if file_of(command_line) is None and len(elements) > 1:
        yield Diagnostic(
            f"{options.ARRAY.flag} without {options.SWEEP.flag}: all {len(elements)} runs have the "
            "same arguments and train the same model",
            where=f"{options.ARRAY.flag} {command_line.values[options.ARRAY.flag]}",
            allowed=f"{options.SWEEP.flag} FILE with one line of further arguments per run",
            severity="warning",
        )


def located(diagnostic: Diagnostic, element: Element) -> Diagnostic:
    """The diagnostic with the line that it is in, if the line caused it."""
    if not element.arguments or diagnostic.severity != "error":
        return diagnostic
    return replace(diagnostic, where=": ".join(filter(None, (element.where, diagnostic.where))))


def staged(element: Element) -> Diagnostic:
    """The error of an element that would need several jobs."""
    return Diagnostic(
        f"mode {STAGED_MODE} needs one job per stage, but an array element is a single job",
        where=element.where,
        allowed=f"one stage per element, with  {STAGE.flag} NAME ; or  submit  without an array",
    )


def _lines(path: Path) -> dict[int, str]:
    """The lines of arguments by number from 1, without comments (`#`) and empty lines."""
    where = f"{options.SWEEP.flag} {path}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        message = f"cannot read {path}: {reason}"
        raise SettingsError.of(message, value=str(path), where=where) from error
    lines = {
        number: content
        for number, content in enumerate(text.splitlines(), start=1)
        if content.strip() and not content.lstrip().startswith("#")
    }
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
            message = f"invalid {options.ARRAY.flag} {numbers!r}"
            allowed = f"a range: 1-8, 0-30:10, 1,4,7 or 1-8%2, up to {_MOST}"
            raise SettingsError.of(message, value=numbers, where=where, allowed=allowed)
        selected.update(range(first, last + 1, int(match[3] or 1)))
    return sorted(selected)
