"""What a person should know at once of an event; all other events can wait for the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from training.logging.quantities import duration

Facts = Mapping[str, Any]


def text(kind: str, facts: Facts) -> str | None:
    """The text of an event of that kind; None: it can wait for the log."""
    found = _TEXTS.get(kind)
    if found is None:
        return None
    return found(facts) if callable(found) else found.format_map({**facts, "use": _use(facts)})


def _signal(facts: Facts) -> str:
    names = " and ".join(facts["names"])
    again = "; Ctrl-C once more ends at once" if "SIGINT" in facts["names"] else ""
    ending = "saving and ending" if facts["saves"] else "ending, without saving,"
    return f"{names}: {ending} after this step{again}"


def _straggler(facts: Facts) -> str:
    took, others = _short(facts["seconds"]), _short(facts["median_seconds"])
    does = "computes" if facts["what"] == "step" else "waits for its data"
    return f"rank {facts['rank']} on {facts['host']} {does} {took} a step, the others {others}"


def _short(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else duration(seconds)


def _use(facts: Facts) -> str:
    """How much of what is over its limit is in use."""
    over = facts.get("over") or facts.get("critical") or []
    return ", ".join(f"{name} {facts[name]:.0f}%" for name in over)


_TEXTS: Mapping[str, str | Callable[[Facts], str]] = {
    "warning": "{text}",
    "signal": _signal,
    "deadline": "the hours of --max-hours have passed: saving and ending after this step",
    "limit_exceeded_at_start": (
        "{use} over its limit before the run began; only limits.critical counts"
    ),
    "throttled": "{use} over its limit: giving back what can be given back",
    "pressure": "{use} still over its limit: saving and ending; see limits.*",
    "limit_given_up": (
        "{use} over its limit, and nothing a run can do helps: not watched any more"
    ),
    "disk_filling": "{use} over its limit: free some, or saving will fail",
    "straggler": _straggler,
    "straggler_gone": "rank {rank} on {host} keeps up again",
    "fewer_workers": "loader workers {from} → {to}, to take less",
    "out_of_memory": "memory ran out in step {at}: {text}",
    "smaller_micro_batch": (
        "micro-batch {from} → {to} × {accumulation} accumulated: the global batch stays"
    ),
}
"""Braces hold a fact, or `use`; a function makes what is more than that."""
