"""What those who started the processes say of them, and what they leave nobody else to say."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

from launcher.base.diagnostics import Diagnostic
from launcher.config import errors
from launcher.config.provenance import CliArgs, Resolved
from slurm.environment import InvalidEnvironment, RankEnvironment

T = TypeVar("T")


def told_by(
    read: Callable[[Mapping[str, str]], T | None], diagnostics: list[Diagnostic]
) -> T | None:
    """What the environment tells; None: nothing, or what is wrong."""
    try:
        return read(os.environ)
    except InvalidEnvironment as fault:
        diagnostics.append(
            Diagnostic(fault.message, where="the environment", allowed=fault.allowed)
        )
        return None


def wrong_nproc(words: CliArgs, place: RankEnvironment) -> list[Diagnostic]:
    """Another number of processes than those that were started."""
    option, text = words.options.get("engine.nproc", ("", str(place.local_size)))
    if text == str(place.local_size):
        return []
    return [
        Diagnostic(
            f"{option} {text}, but {place.source} has started {place.local_size} on this machine",
            key="engine.nproc",
            value=text,
            where=f"{option} {text}",
            allowed=f"no {option} under {place.source}, which decides it",
        )
    ]


def wrong_restarts(resolved: Resolved, place: RankEnvironment) -> list[Diagnostic]:
    """Restarts, of processes that only others can start."""
    key = "engine.max_restarts"
    value = resolved.values[key]
    if not value.value:
        return []
    return [
        Diagnostic(
            f"{key} {value.value}, but {place.source} has started the processes, and it alone can "
            "start them again",
            key=key,
            value=value.value,
            where=errors.where(key, value.origin),
            allowed=f"0 under {place.source}; with  --resume auto  a second start goes on",
        )
    ]
