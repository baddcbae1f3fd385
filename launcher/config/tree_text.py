"""Settings as a person reads them: a tree of values, with their origins and what they replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from launcher.base.diagnostics import plain
from launcher.config.resolved import Origin, Setting

_NAME = 27
_VALUE = 20


def render_tree(values: Mapping[str, Setting], history: bool) -> str:
    """The settings by section; with `history` each value that a layer replaced, newest first."""
    lines: list[str] = []
    section: Sequence[str] = ()
    for key, value in sorted(values.items(), key=lambda item: "." in item[0]):
        *above, name = key.split(".")
        if above != section:
            lines += _opened(section, above)
            section = above
        lines += _lines("  " * len(above), name, value, history)
    return "\n".join(lines) + "\n"


def describe_overridden(value: Setting) -> list[str]:
    """What a value replaced, a line each, newest first."""
    return [f"{plain(old)} of {describe_origin(origin)}" for old, origin in value.replaced]


def describe_origin(origin: Origin) -> str:
    """Where a value was written, by which layer where the place does not say it, and from what."""
    how = f": {origin.how}" if origin.how else ""
    if origin.layer in (origin.place, "config", "command line"):
        return origin.place + how
    return f"{origin.place} ({origin.layer}){how}"


def _opened(before: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    common = 0
    while common < min(len(before), len(now)) and before[common] == now[common]:
        common += 1
    for depth in range(common, len(now)):
        if not depth:
            yield ""
        yield "  " * depth + now[depth]


def _lines(indent: str, name: str, value: Setting, history: bool) -> Iterator[str]:
    left = f"{indent}{name}"
    yield f"{left:<{_NAME}} {plain(value.value):<{_VALUE}} {describe_origin(value.origin)}"
    if history:
        for line in describe_overridden(value):
            yield f"{'':<{_NAME}} {'':<{_VALUE}}   replaced {line}"
