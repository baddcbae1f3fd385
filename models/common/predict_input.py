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
            fix=error.fix,
        ) from None


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


def needs_stage(stage: str, needed: str) -> DataError:
    """The error for a run whose `stage` trains no part that predicts; `needed` does."""
    return DataError(
        f"a model of model.stage={stage} predicts nothing for files: it has no decoder",
        where="model.stage of the run",
        allowed=f"a run of model.stage={needed}",
        fix=f"train on top of this encoder, and use that run:  --stage {needed} --from RUN",
    )
