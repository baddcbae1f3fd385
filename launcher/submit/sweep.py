"""The runs of an array: a line of further words for each, and which lines are meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.cli import parser
from launcher.cli.options import BY_FLAG, STAGE
from launcher.cli.parser import Request
from launcher.config.resolved import STAGED
from launcher.submit import options
from launcher.submit.words import of_run

_PART = re.compile(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?")
_OF_ALL = {option.flag for option in options.SUBMIT} - set(BY_FLAG)
"""What is asked of Slurm for the array as a whole."""
_MOST = 100_000
"""Elements that are looked at; Slurm's own limit, MaxArraySize, is lower almost everywhere."""


@dataclass(frozen=True)
class Element:
    """One run of an array."""

    index: int
    words: Sequence[str]
    """What its line adds to the words of all."""
    place: str
    """Where they stand."""
    request: Request
    """What all of its words ask for; `out` is what the line alone says."""


def file_of(request: Request) -> Path | None:
    """The file of --sweep; None: there is none."""
    name = request.values.get(options.SWEEP.flag)
    return None if name is None else Path(name)


def read(
    request: Request, array: str | None, diagnostics: Sequence[Diagnostic]
) -> tuple[list[Element], str]:
    """The elements, and the limit on how many run at a time as sbatch has it: `%2`, or nothing.

    Reads the file. Raises SettingsError with `faults` and what is wrong with file and numbers.
    """
    numbers, _, limit = (array or "").partition("%")
    path = file_of(request)
    if path is None:
        chosen = _chosen(numbers, f"{options.ARRAY.flag} {array}", diagnostics)
        lines, where = dict.fromkeys(chosen, ""), ""
    else:
        lines, where = _lines(path, diagnostics), f"{path}:"
        if array is not None:
            place = f"{options.ARRAY.flag} {array}"
            wanted = _chosen(numbers, place, diagnostics)
            if missing := [number for number in wanted if number not in lines]:
                raise SettingsError([*diagnostics, _no_line(path, missing[0], list(lines), place)])
            lines = {number: lines[number] for number in wanted}
    typed = of_run(request.typed)
    elements = []
    for number, text in lines.items():
        place = f"{where}{number}" if where else f"{options.ARRAY.flag} {array}"
        words = _split(text, place, diagnostics)
        if wrong := [word for word in words if word.partition("=")[0] in _OF_ALL]:
            raise SettingsError([*diagnostics, _not_here(wrong[0], place)])
        read = parser.read(["run", *typed, *words])
        elements.append(Element(number, words, place, read))
    return elements, f"%{limit}" if limit else ""


def line(words: Sequence[str]) -> str:
    """Words as a line of the file that the job reads."""
    return shlex.join(words)


def indices(numbers: Sequence[int], limit: str) -> str:
    """The value of --array: `1-4,7%2`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    said = [f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts]
    return ",".join(said) + limit


def warnings(request: Request, elements: Sequence[Element]) -> Iterator[Diagnostic]:
    """That all elements would do the same."""
    if file_of(request) is None and len(elements) > 1:
        yield Diagnostic(
            f"{options.ARRAY.flag} without {options.SWEEP.flag}: {len(elements)} runs with the "
            "same words, which train the same model",
            where=f"{options.ARRAY.flag} {request.values[options.ARRAY.flag]}",
            allowed=f"{options.SWEEP.flag} FILE with a line of further words for each",
            severity="warning",
        )


def placed(fault: Diagnostic, element: Element) -> Diagnostic:
    """A fault with the line that it is in."""
    if not element.words or fault.severity != "error":
        return fault
    return replace(fault, where=": ".join(filter(None, (element.place, fault.where))))


def staged(element: Element) -> Diagnostic:
    """That an element would be a chain of jobs."""
    return Diagnostic(
        f"mode {STAGED} is a job for each stage, and an element of an array is one job",
        where=element.place,
        allowed=f"one stage in each, by  {STAGE.flag} NAME ; or  submit  without an array",
    )


def _lines(path: Path, diagnostics: Sequence[Diagnostic]) -> dict[int, str]:
    """The lines that hold words, by number from 1; one that begins with `#` is a remark."""
    place = f"{options.SWEEP.flag} {path}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        what = f"{path} cannot be read: {reason}"
        raise SettingsError(
            [*diagnostics, Diagnostic(what, value=str(path), where=place)]
        ) from error
    found = {
        number: told
        for number, told in enumerate(text.splitlines(), start=1)
        if told.strip() and not told.lstrip().startswith("#")
    }
    if not found:
        what = f"{path} holds no line of words"
        allowed = "a line for each run, such as  --lr 1e-3 --seed 1"
        raise SettingsError(
            [*diagnostics, Diagnostic(what, value=str(path), where=place, allowed=allowed)]
        )
    return found


def _split(text: str, place: str, diagnostics: Sequence[Diagnostic]) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        what = f"a line of words cannot be read: {str(error).lower()}"
        raise SettingsError([*diagnostics, Diagnostic(what, value=text, where=place)]) from error


def _chosen(numbers: str, place: str, diagnostics: Sequence[Diagnostic]) -> list[int]:
    """The numbers that a range such as `0-6:2,9` holds."""
    found: set[int] = set()
    for part in numbers.split(","):
        match = _PART.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or last < first or last > _MOST:
            what = f"{options.ARRAY.flag} {numbers!r} is not legal"
            allowed = f"such as 1-8, 0-30:10, 1,4,7 or 1-8%2, up to {_MOST}"
            raise SettingsError(
                [*diagnostics, Diagnostic(what, value=numbers, where=place, allowed=allowed)]
            )
        found.update(range(first, last + 1, int(match[3] or 1)))
    return sorted(found)


def _not_here(word: str, place: str) -> Diagnostic:
    return Diagnostic(
        f"{word.partition('=')[0]} is for all runs of an array, and not for one of them",
        value=word,
        where=f"{place}: {word}",
        allowed="options of  run  in a line",
        fix=f"submit {word.partition('=')[0]} …  on the command line",
    )


def _no_line(path: Path, number: int, lines: Sequence[int], place: str) -> Diagnostic:
    return Diagnostic(
        f"{path} has no words for element {number}",
        value=number,
        where=place,
        allowed=f"its lines {indices(lines, '')}",
    )
