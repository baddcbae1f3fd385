"""Decides a run as it will be decided in its job: for the worlds that this may come to have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import machine
from launcher.config.resolved import CliArgs
from launcher.run import prepare as start
from launcher.run.prepare import Start
from launcher.submit.asked import Asked
from slurm.environment import Place

_MOST = 16
"""Sizes of a world that are tried; of more, every so many."""


def prepare(
    words: CliArgs, out: Path | None, diagnostics: Sequence[Diagnostic], asked: Asked
) -> Start:
    """Decide everything of one run on the cluster; that in its largest world. Starts nothing.

    Reads settings files, and JSON of a run that goes on. Raises SettingsError with `faults` and
    all others that can be found.
    """
    there = asked.machine(machine.look())
    found = list(diagnostics)
    begun: Start | None = None
    for place in _some(asked.places()):
        try:
            begun = start.prepare_at(words, out, [], there, place)
        except SettingsError as error:
            found += [
                one
                for one in error.diagnostics
                if one.message not in [two.message for two in found]
            ]
    if found or begun is None:
        raise SettingsError(found)
    return begun


def _some(places: list[Place | None]) -> list[Place | None]:
    """The smallest and the largest world, and those between as far as there is time for them."""
    stride = -(-len(places) // _MOST)
    return [*places[:-1:stride], places[-1]]
