"""What is told of data: bad records together, errors of libraries, names in a list, progress."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from shlex import quote
from typing import Literal

from gearshift.models.base import DataError

OnBad = Literal["stop", "skip"]
MAX_EXAMPLES = 3


class MissingPackage(DataError):
    """A reader lacks its package: no fault of a record, so none is skipped for it."""


def install_command(extra: str) -> str:
    """What the user types to install an extra of this program."""
    return f"pip install 'gearshift[{extra}]'"


@contextmanager
def library_errors(message: str, where: str, *, allowed: str, hint: str = "") -> Iterator[None]:
    """Raises any exception of a library that reads a file as one DataError; hides its warnings.

    For damaged files h5py, scipy, MNE and openpyxl raise exceptions of many types, also
    UnboundLocalError and those of zlib, which change between versions: so all are caught, and the
    error has the first line of the text, after the type unless that says no more.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        is_plain = type(error) in (Exception, ValueError) or isinstance(error, OSError)
        if not cause or not is_plain:
            cause = f"{type(error).__name__}: {cause}"
        raise DataError(f"{message}: {cause}", where=where, allowed=allowed, hint=hint) from None


def unknown_embedded(path: str, names: Collection[str]) -> DataError:
    """The error for an `embedded:` name that does not exist."""
    closest = get_close_matches(path, list(names), n=1, cutoff=0.0)[0]
    return DataError(
        f"unknown data.path '{path}'",
        allowed=", ".join(names),
        did_you_mean=closest,
        fix=f"--data {quote(closest)}",
    )


MAX_NOTES = 8


def few(notes: Sequence[str], most: int = MAX_NOTES, of: int = 0) -> list[str]:
    """The first notes, and the number of the others.

    `of`: how many there are, if `notes` does not hold all.
    """
    shown = list(notes[:most])
    num_more = max(of, len(notes)) - most
    if num_more > 0:
        shown.append(f"and {num_more} more")
    return shown


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and the number of the others."""
    return ", ".join(few(names, most))


@dataclass
class BadRecords:
    """Rows, files or windows that cannot be used; `noun` is their plural."""

    noun: str = "rows"
    count: int = 0
    rows: list[tuple[str, str]] = field(default_factory=list)
    """Place and problem of the first few: a file of another kind may have millions."""
    fix: str = ""
    """What to type or to do about them: the first one known."""

    def add(self, where: str, problem: str, fix: str = "") -> None:
        """Count one more, at `where` (file and line)."""
        self.count += 1
        self.fix = self.fix or fix
        if len(self.rows) < MAX_EXAMPLES:
            self.rows.append((where, problem))

    def finish(self, on_bad: OnBad, num_good: int) -> int:
        """The number of skipped records. Raises DataError if there are any and `on_bad` is stop."""
        if self.count and on_bad == "stop":
            is_option = self.fix.startswith("--")
            fix = self.fix if is_option else ""
            if not is_option and num_good > 0:  # otherwise skipping leaves nothing
                fix = "--set data.on_bad=skip"
            raise DataError(
                f"{self.count} of {self.count + num_good} {self.noun} cannot be used",
                where="\n                ".join(few(self.examples(), MAX_EXAMPLES, self.count)),
                fix=fix,
                hint="" if is_option else self.fix or f"correct {self.rows[0][0]}",
            )
        return self.count

    def examples(self) -> list[str]:
        """The first few, for the facts of the data."""
        return [f"{where}: {problem}" for where, problem in self.rows]


IGNORE = "ignore"
"""The meaning of a column of a table that is not read."""


_LINE_S = 10.0


@contextmanager
def progress(work: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Gives a function that takes how much of `total` is done; prints it every 10 s."""
    line_at = time.monotonic() + _LINE_S

    def update(done: int) -> None:
        nonlocal line_at
        if time.monotonic() > line_at:
            line_at = time.monotonic() + _LINE_S
            rest = "" if total is None else f" of {total:,}"
            print(f"{work}: {done:,}{rest}", file=sys.stderr, flush=True)

    yield update
