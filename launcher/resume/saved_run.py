"""A run as its folder tells of it: its checkpoints, and the settings they were made with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, nearest_match
from launcher.config.settings_file import node_value, read_settings_file
from launcher.resume.find import holds_run
from launcher.resume.resume_point import Part
from launcher.run_folder import run_folder
from launcher.stages import record
from training.checkpoint import manifest, retention
from training.settings import nested

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint

_LEGAL = "a run folder, or one of its checkpoints"


@dataclass(frozen=True)
class SavedRun:
    """What a person named: a run folder, or one checkpoint."""

    folder: Path | None
    """The run folder; None: a checkpoint that lies outside of one."""
    named: Path | None
    """The checkpoint that was named itself."""
    checkpoints: Mapping[int, Path]
    """All there are, whole or not, by step, earliest first."""

    @property
    def best(self) -> Path | None:
        """The checkpoint of the best evaluation; None: none was kept. Reads the disk."""
        link = None if self.folder is None else self.folder / retention.BEST
        return link if link is not None and link.is_dir() else None

    def settings(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        """The settings that `checkpoint` was made with, as a tree; None: nobody knows them.

        Older checkpoints do not hold them; then they are those of the run folder. Reads the disk.
        Raises SettingsError.
        """
        kept = checkpoint.facts.get("settings")
        if isinstance(kept, dict):
            return nested(kept)
        if self.folder is None:
            return None
        return dict(node_value(read_settings_file(self.folder / run_folder.SETTINGS)))

    def restarts(self, after: int, upto: int) -> list[Restart]:
        """Where the run went on from a checkpoint of the steps [`after`, `upto`). Reads the disk.

        Of several at one step the last counts: its predecessors came to nothing that stayed.
        """
        path = None if self.folder is None else self.folder / run_folder.EVENTS
        if path is None or not path.is_file():
            return []
        found = {}
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                event = json.loads(line)
                if event["kind"] == "resumed" and after <= event["step"] < upto:
                    found[event["step"]] = _restart(event["step"], event["facts"])
            except (ValueError, KeyError, TypeError):  # half a line of a process that was killed
                continue
        return [found[step] for step in sorted(found)]


@dataclass(frozen=True)
class Restart:
    """The run went on from a checkpoint, in another process."""

    step: int
    writer: tuple[str, int]
    """Engine and number of processes that had made the checkpoint."""
    reset: tuple[Part, ...]
    """What began anew."""
    changes: tuple[str, ...]


def _restart(step: int, facts: Mapping[str, Any]) -> Restart:
    writer = facts["written_by"]
    return Restart(
        step=step,
        writer=(writer["engine"], writer["world_size"]),
        reset=tuple(facts["reset"]),
        changes=tuple(facts["changes"]),
    )


def find(word: str, command: str) -> SavedRun:
    """What `word`, typed after `command`, names. Reads the disk.

    Raises SettingsError where there is no run or checkpoint, or none was saved.
    """
    path = Path(word)
    place = f"the command line: {command} {word}"
    named = path if (path / manifest.NAME).is_file() else None
    folder: Path | None = path if named is None else _run_of(path)
    if folder is not None and not holds_run(folder):
        folder = None
    if folder is None and named is None:
        raise SettingsError([_no_run(path, place, command)])
    checkpoints = _checkpoints(folder) if folder is not None else {}
    if not checkpoints and named is None:
        what = f"{path} has no checkpoint"
        allowed = "a run that has saved; see save.every, save.last"
        raise SettingsError([Diagnostic(what, value=word, where=place, allowed=allowed)])
    return SavedRun(folder, named, checkpoints)


def _run_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in; it may be named by the links last and best."""
    if checkpoint.is_symlink():
        return checkpoint.parent
    return checkpoint.absolute().parent.parent


def _checkpoints(folder: Path) -> dict[int, Path]:
    """The folders named for a step; what is half made or set aside has other names."""
    found = {}
    for entry in _entries(folder / run_folder.CHECKPOINTS):
        step = manifest.step_of(entry.name)
        if step is not None and entry.is_dir():
            found[step] = entry
    return dict(sorted(found.items()))


def _no_run(path: Path, place: str, command: str) -> Diagnostic:
    runs = [entry.name for entry in _entries(path.parent) if holds_run(entry)]
    near = nearest_match(path.name, runs)
    fix = near and f"{PROGRAM} {command} {path.parent / near}"
    if not path.exists():
        what = f"there is no run folder '{path}'"
    else:
        what = f"'{path}' holds no run: there is no {run_folder.SETTINGS} in it"
    stages = record.load(path)
    if stages is not None:
        what = f"'{path}' holds several runs, one for each stage"
        near, fix = None, f"{PROGRAM} {command} {list(stages.stages.values())[-1]}"
    return Diagnostic(
        what, value=str(path), where=place, allowed=_LEGAL, did_you_mean=near, fix=fix
    )


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError:
        return
