"""Files to predict: errors that name the option --input, and distinct names of predictions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from models.base import DataError

OPTION = "--input"
_SETTING = "data.path"


@contextmanager
def input_errors() -> Iterator[None]:
    """Raises errors of readers for an input, not for data.path."""
    try:
        yield
    except DataError as error:
        raise DataError(
            error.message.replace(_SETTING, OPTION),
            where=error.where.replace(_SETTING, OPTION),
            allowed=error.allowed,
            did_you_mean=error.did_you_mean,
            fix=_without_settings(error.fix),
        ) from None


def _without_settings(fix: str) -> str:
    """A fix without settings of data, which are those of the run."""
    start, _, others = fix.partition(", or skip them with  --set ")
    if "data.columns" in start:
        return "name the columns as in the data of the run, or remove them from the file"
    return fix if not others and "--set data." not in fix else start.partition("  --set data.")[0]


class DistinctNames:
    """Names of predictions: letters, digits, "-", "_" and "." only, and none twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, text: str) -> str:
        """The name for `text`, such as a path; with a number if another text has that name."""
        start = re.sub(r"[^\w.-]+", "-", text).strip(".-") or "input"
        name, number = start, 1
        while name.casefold() in self._taken:  # some file systems ignore case
            number += 1
            name = f"{start}-{number}"
        self._taken.add(name.casefold())
        return name
