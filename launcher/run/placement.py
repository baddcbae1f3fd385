"""What those who started the processes say of them, and what they leave nobody else to say."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

from launcher.base.diagnostics import Fault
from launcher.config import errors
from launcher.config.resolved import Resolved, Words
from slurm.environment import EnvironmentFault, Place

T = TypeVar("T")


def told_by(read: Callable[[Mapping[str, str]], T | None], faults: list[Fault]) -> T | None:
    """What the environment tells; None: nothing, or what is wrong."""
    try:
        return read(os.environ)
    except EnvironmentFault as fault:
        faults.append(Fault(fault.what, place="the environment", legal=fault.legal))
        return None


def wrong_nproc(words: Words, place: Place) -> list[Fault]:
    """Another number of processes than those that were started."""
    option, text = words.options.get("engine.nproc", ("", str(place.local_size)))
    if text == str(place.local_size):
        return []
    return [
        Fault(
            f"{option} {text}, but {place.source} has started {place.local_size} on this machine",
            key="engine.nproc",
            value=text,
            place=f"{option} {text}",
            legal=f"no {option} under {place.source}, which decides it",
        )
    ]


def wrong_restarts(resolved: Resolved, place: Place) -> list[Fault]:
    """Restarts, of processes that only others can start."""
    key = "engine.max_restarts"
    value = resolved.values[key]
    if not value.value:
        return []
    return [
        Fault(
            f"{key} {value.value}, but {place.source} has started the processes, and it alone can "
            "start them again",
            key=key,
            value=value.value,
            place=errors.place(key, value.origin),
            legal=f"0 under {place.source}; with  --resume auto  a second start goes on",
        )
    ]
