"""experiences.json: the files that a continual run has trained on, one experience after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from gearshift.launcher.run_folder.file_records import FileRecord
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.run_folder.run_folder import EXPERIENCES
from gearshift.training.callbacks.base import Facts
from gearshift.training.logging.encoding import encode_bytes
from gearshift.training.storage import write_file

FOLDER = "experiences"
"""The folder of the run that holds a folder for each experience."""
_FORMAT = 1

State = Literal["planned", "training", "trained", "postponed"]


@dataclass(frozen=True)
class Experience:
    """Files that are trained on together; number 0 is the data that the run began with."""

    number: int
    files: Mapping[str, FileRecord]
    state: State = "planned"
    start_step: int = 0
    """Training of it starts after this step."""
    end_step: int | None = None
    settings: Facts = field(default_factory=dict)
    """The settings of section `continual` at its start; a resumed experience keeps them."""
    replayed: tuple[int, ...] = ()
    """Numbers of the earlier experiences that samples are replayed from."""
    forgetting: Facts | None = None
    """Metrics of old and new data, before and after."""
    reason: str | None = None
    """Why it was postponed; its files are tried again together with the next ones."""


@dataclass(frozen=True)
class Ledger:
    """All experiences of a run, in order."""

    experiences: Sequence[Experience] = ()

    @property
    def unfinished(self) -> Experience | None:
        """The experience to train next."""
        left = (e for e in self.experiences if e.state in ("planned", "training"))
        return next(left, None)

    @property
    def trained(self) -> list[Experience]:
        """The experiences that are trained, including the first data."""
        return [e for e in self.experiences if e.state == "trained"]

    @property
    def postponed(self) -> Experience | None:
        """The newest experience, if it was postponed."""
        newest = self.experiences[-1] if self.experiences else None
        return newest if newest and newest.state == "postponed" else None

    def known_files(self) -> dict[str, FileRecord]:
        """The files of all experiences that are not postponed."""
        files: dict[str, FileRecord] = {}
        for experience in self.experiences:
            if experience.state != "postponed":
                files |= experience.files
        return files

    def updated(self, experience: Experience) -> Ledger:
        """The ledger with `experience` added, or replaced if its number exists."""
        before = self.experiences[: experience.number]
        after = self.experiences[experience.number + 1 :]
        return Ledger([*before, experience, *after])

    def rewound_to(self, step: int) -> Ledger:
        """The ledger as it was at `step`: experiences that started later are dropped."""
        experiences: list[Experience] = []
        for experience in self.experiences:
            if experience.number and experience.start_step >= step:
                break
            if experience.state == "trained" and (experience.end_step or 0) > step:
                experience = replace(experience, state="training", end_step=None, forgetting=None)
            experiences.append(experience)
        return Ledger(experiences)

    def save(self, run: Path) -> None:
        """Write the ledger into the run folder, atomically. Raises StorageError."""
        path = run / EXPERIENCES
        content = {"format": _FORMAT, "experiences": [asdict(e) for e in self.experiences]}
        write_file(path, encode_bytes(content, indent=1) + b"\n")


_LEDGER = TypeAdapter(Ledger)


def load(run: Path) -> Ledger | None:
    """The ledger of a run folder; None if it has none. Raises InvalidRecord. Reads the disk."""
    content = RunReader(run).object(EXPERIENCES, _LEDGER)
    return _LEDGER.validate_python(content) if content else None


def data_folder(run: Path, number: int) -> Path:
    """The links to the files of experience `number`."""
    return run / FOLDER / f"{number:04d}" / "data"


def task_folder(run: Path, number: int) -> Path:
    """The files of its task, such as the split; the task of the first data has the run folder."""
    return run / FOLDER / f"{number:04d}" / "task" if number else run
