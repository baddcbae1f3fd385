"""Why a step cannot be traced on tensors without values: the operation, and its line of code."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ERRORS = (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError, AssertionError)
"""What a step may raise because its tensors have no values: torch's DynamicOutputShapeException,
DataDependentOutputException and UnsupportedFakeTensorException are RuntimeErrors, and numbers that
were made up lead to others."""
_ROOT = Path(__file__).parents[2]
_TRAINING = tuple(str(_ROOT / name) for name in ("launcher", "engines", "training"))


@dataclass(frozen=True)
class Untraced:
    """The operation that needs values."""

    operation: str
    """Such as aten.nonzero.default, or what it raised."""
    where: str
    """File, line and text of the task's code; empty: unknown."""


def describe(error: BaseException) -> Untraced:
    """The operation that raised `error`, and the line of the task that called it."""
    function = getattr(error, "func", None) or (error.args[0] if error.args else None)
    name = str(function).strip().split("\n")[0] if function is not None else ""
    operation = f"{name} needs values" if hasattr(function, "overloads") else name
    return Untraced(operation or type(error).__name__, next(_lines(error), ""))


def _lines(error: BaseException) -> Iterator[str]:
    """Lines of the task, the innermost first."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        is_library = "site-packages" in frame.filename or frame.filename.startswith("<")
        if not is_library and not frame.filename.startswith(_TRAINING):
            yield f"at {frame.filename}:{frame.lineno}: {frame.line}"
