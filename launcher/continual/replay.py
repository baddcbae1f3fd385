"""Which parts of the data an experience replays, and the lesson that this makes."""

from __future__ import annotations

from pathlib import Path

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.continual import folders, ledger
from launcher.continual.ledger import Experience, Ledger
from launcher.continual.lesson import Lesson

PARTS = "replayed"
"""The numbers of the parts, among what the ledger keeps of how an experience is learnt."""


def lost(run: Path, experience: Experience) -> str | None:
    """A file of an experience that is not as it was taken; None: all are. Reads the disk."""
    data = folders.part(run, experience.number).data
    return next(ledger.changed(data, experience.files), None)


def lesson(run: Path, experience: Experience, ends_at: float | None = None) -> Lesson:
    """What the ranks are told of an experience in the run folder `run`."""
    numbers = [*experience.how.get(PARTS, ()), experience.number]
    parts = [folders.part(run, number) for number in numbers]
    return Lesson(experience.number, parts, experience.how, ends_at)


def lesson_at(run: Path, after: int, upto: int) -> Lesson | None:
    """That of the steps [`after`, `upto`); None: the run does not watch a folder. Reads the disk.

    Raises StorageError, and SettingsError where the steps are of more than one experience.
    """
    known = ledger.load(run) or Ledger()
    begun = [one for one in known.experiences if one.begun_at < upto and one.state != "refused"]
    if not begun:
        return None
    if begun[-1].begun_at > after:
        what = f"steps {after} to {upto} of {run} are of more than one experience"
        allowed = f"a checkpoint of step {begun[-1].begun_at} or later, and one after it"
        fix = f"let the run keep more:  {PROGRAM} resume {run} --set save.every=…"
        raise SettingsError([Diagnostic(what, value=str(run), allowed=allowed, fix=fix)])
    return lesson(run, begun[-1])
