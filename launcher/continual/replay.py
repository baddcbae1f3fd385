"""Which parts of the data an intake replays, and the lesson that this makes."""

from __future__ import annotations

from pathlib import Path

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.continual import folders, ledger
from launcher.continual.ledger import Intake, Ledger
from launcher.continual.lesson import Lesson

PARTS = "replayed"
"""The numbers of the parts, among what the ledger keeps of how an intake is learnt."""


def lost(run: Path, intake: Intake) -> str | None:
    """A file of an intake that is not as it was taken; None: all are. Reads the disk."""
    data = folders.part(run, intake.number).data
    return next(ledger.changed(data, intake.files), None)


def lesson(run: Path, intake: Intake, ends_at: float | None = None) -> Lesson:
    """What the ranks are told of an intake in the run folder `run`."""
    numbers = [*intake.how.get(PARTS, ()), intake.number]
    parts = [folders.part(run, number) for number in numbers]
    return Lesson(intake.number, parts, intake.how, ends_at)


def lesson_at(run: Path, after: int, upto: int) -> Lesson | None:
    """That of the steps [`after`, `upto`); None: the run does not watch a folder. Reads the disk.

    Raises RunFolderError, and SettingsError where the steps are of more than one intake.
    """
    known = ledger.load(run) or Ledger()
    begun = [one for one in known.intakes if one.begun_at < upto and one.state != "refused"]
    if not begun:
        return None
    if begun[-1].begun_at > after:
        what = f"steps {after} to {upto} of {run} are of more than one intake"
        allowed = f"a checkpoint of step {begun[-1].begun_at} or later, and one after it"
        fix = f"let the run keep more:  {PROGRAM} resume {run} --set save.every=…"
        raise SettingsError([Diagnostic(what, value=str(run), allowed=allowed, fix=fix)])
    return lesson(run, begun[-1])
