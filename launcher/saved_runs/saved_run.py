"""A finished run that a command names: its folder and its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from launcher.base.diagnostics import SettingsError, nearest_match
from launcher.config.presets import TASK_FOLDER
from launcher.config.schema import PRETRAINED
from launcher.run_folder import checkpoint_search, run_folder
from launcher.run_folder.reader import RunReader
from training.checkpoint import retention

_MOVABLE = (PRETRAINED, TASK_FOLDER)
"""Settings of a finished run that name a folder, which may have moved."""


@dataclass
class _Facts:
    written_by: dict[str, Any]
    reset: list[str]
    changes: list[str]


@dataclass
class _Resumed:
    kind: Literal["resumed"]
    step: int
    facts: _Facts


_RESUMED: TypeAdapter[Any] = TypeAdapter(_Resumed)


@dataclass(frozen=True)
class SavedRun:
    """A run folder, or one checkpoint, given to a command."""

    folder: Path | None
    """The run folder; None: a checkpoint outside of a run folder."""
    named: Path | None
    """The checkpoint, if the user gave one."""
    checkpoints: Mapping[int, Path]
    """All checkpoints by step, the earliest first; some may be damaged."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """The new folder of the pretrained model, or of a custom task, by its setting."""

    def chosen(self, name: str | None) -> Path:
        """The checkpoint `name`: best, last or a step; None: the best one, or else the last.

        Reads the disk. Raises SettingsError if there is none of that name.
        """
        link = None if self.folder is None else self.folder / retention.BEST
        best = link if link is not None and link.is_dir() else None
        if name is None and self.named is not None:
            return self.named
        if name in (None, retention.BEST) and best is not None:
            return best
        if name in (None, retention.LAST) and self.checkpoints:
            return self.checkpoints[max(self.checkpoints)]
        if name is not None and name.isdigit() and int(name) in self.checkpoints:
            return self.checkpoints[int(name)]
        name = name or retention.LAST
        steps = [str(step) for step in self.checkpoints]
        names = ([retention.BEST] if best is not None else []) + [retention.LAST, *steps]
        raise SettingsError.of(
            f"no checkpoint '{name}' in {self.folder or self.named}",
            value=name,
            where=f"command line: --checkpoint {name}",
            allowed=", ".join(names),
            did_you_mean=nearest_match(name, names),
        )

    def restarts(self, after: int, upto: int) -> dict[int, Mapping[str, Any]]:
        """The facts of the resumes from checkpoints of the steps [`after`, `upto`). Reads the disk.

        Of several at one step the last counts: the results of the others were replaced.
        """
        events = RunReader(self.folder).lines(run_folder.EVENTS, _RESUMED) if self.folder else ()
        facts = {event["step"]: event["facts"] for event in events}
        return {step: facts[step] for step in sorted(facts) if after <= step < upto}


def moved_folders(sets: Sequence[str]) -> dict[str, str]:
    """The folders in the arguments of `--set` by their setting. Raises SettingsError."""
    folders = {}
    for text in sets:
        key, _, value = text.partition("=")
        if key.strip() not in _MOVABLE or not value:
            message, where = f"'{key}' cannot be set here", f"the command line: --set {text}"
            allowed = " or ".join(f"--set {name}=DIR" for name in _MOVABLE)
            raise SettingsError.of(message, key=key, value=text, where=where, allowed=allowed)
        folders[key.strip()] = value
    return folders


def find_saved(word: str, command: str, sets: Sequence[str] = (), *, needs_folder: bool = False) -> SavedRun:
    """What `word`, typed after `command`, names; `sets` are those of moved_folders.

    `needs_folder`: a checkpoint outside of its run folder is an error. Reads the disk. Raises
    SettingsError where there is no run or checkpoint, none was saved, or a file of the run is
    damaged.
    """
    moved, path = moved_folders(sets), Path(word)
    where = f"the command line: {command} {word}"
    try:
        folder, named = checkpoint_search.around(path)
        if folder is None and named is None:
            raise checkpoint_search.no_run(path, where, command)
        if folder is not None:
            RunReader(folder).check()
        checkpoints = checkpoint_search.checkpoints(folder) if folder is not None else {}
    except PermissionError as error:
        raise checkpoint_search.unreadable(error, where) from error
    if not checkpoints and named is None:
        message = f"{path} has no checkpoint"
        allowed = "a run with a checkpoint; see save.every and save.last"
        raise SettingsError.of(message, value=word, where=where, allowed=allowed)
    if needs_folder and not checkpoints:
        message = f"'{word}' is a checkpoint outside of its run folder"
        allowed = "a run folder, or a checkpoint in one"
        raise SettingsError.of(message, value=word, where=where, allowed=allowed)
    return SavedRun(folder, named, checkpoints, moved)
