"""A finished run that a command opens: its folder, its checkpoints and their settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import Diagnostic, SettingsError, nearest_match
from launcher.config import copied_task
from launcher.config.options import OUTPUT, Option
from launcher.config.provenance import ResetPart
from launcher.config.schema import PRETRAINED
from launcher.config.settings_file import node_value, read_settings_file
from launcher.run_folder import checkpoint_search, records, run_folder
from launcher.run_folder.run_folder import json_lines
from training.checkpoint import base_weights, manifest, retention
from training.settings import nested

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint

MOVED = Option(
    "--set",
    OUTPUT,
    f"{PRETRAINED}=DIR",
    sentence="New folder of the pretrained model of the run, if it has moved; its weights must be "
    "the same.",
    repeats=True,
)
FORM = f"--set {PRETRAINED}=DIR"


def moved_to(sets: Sequence[str]) -> str | None:
    """The folder in the arguments of `--set`; None: there is none. Raises SettingsError."""
    if wrong := list(_misplaced(sets)):
        raise SettingsError(wrong)
    return sets[-1].partition("=")[2] if sets else None


def _misplaced(sets: Sequence[str]) -> Iterator[Diagnostic]:
    for text in sets:
        key, _, value = text.partition("=")
        if key.strip() != PRETRAINED or not value:
            message, where = f"'{key}' cannot be set here", f"the command line: --set {text}"
            yield Diagnostic(message, key=key, value=text, where=where, allowed=FORM)


def _check_moved(folder: str, checkpoint: Checkpoint, *, is_new: bool) -> None:
    """Check that `folder` exists, and a new one has the weights that the checkpoint knows.

    Reads each byte of those. Raises SettingsError.
    """
    path, step = Path(folder).expanduser(), checkpoint.manifest.step
    where = f"the command line: --set {PRETRAINED}={folder}" if is_new else str(checkpoint.folder)
    if not path.is_dir():
        message = f"{PRETRAINED} '{folder}' is not a folder ({path.absolute()})"
        parts = {"allowed": "its folder, also a new one", "fix": f"{FORM}  if it has moved"}
        raise SettingsError.of(message, value=folder, where=where, **parts)
    if not is_new:
        return
    known = checkpoint.facts.get(base_weights.FACT)
    if known is None:
        message = f"the checkpoint of step {step} has no checksum of {PRETRAINED}"
        raise SettingsError.of(message, value=folder, where=where, allowed="the same path")
    if base_weights.digest(path) != known["sha256"]:
        raise SettingsError.of(
            f"the weights in '{folder}' are not those that the checkpoint of step {step} was "
            "trained on",
            value=folder,
            where=where,
            allowed=f"the weights with sha256 {known['sha256']}, once in {known['folder']}",
        )


@dataclass(frozen=True)
class SavedRun:
    """A run folder, or one checkpoint, given to a command."""

    folder: Path | None
    """The run folder; None: a checkpoint outside of a run folder."""
    named: Path | None
    """The checkpoint, if the user gave one."""
    checkpoints: Mapping[int, Path]
    """All checkpoints by step, the earliest first; some may be damaged."""
    pretrained: str | None = None
    """The new folder of the pretrained model; None: it has not moved."""

    @property
    def best(self) -> Path | None:
        """The checkpoint of the best evaluation; None: there is none. Reads the disk."""
        link = None if self.folder is None else self.folder / retention.BEST
        return link if link is not None and link.is_dir() else None

    def settings(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        """The settings of `checkpoint` as a tree; None: unknown.

        Older checkpoints have none: then those of the run folder. Reads the disk.
        Raises SettingsError.
        """
        settings = checkpoint.facts.get("settings")
        if isinstance(settings, dict):
            tree = nested(settings)
        elif self.folder is None:
            return None
        else:
            tree = dict(node_value(read_settings_file(self.folder / run_folder.SETTINGS)))
        model = tree["model"]
        if self.pretrained is not None:
            model = {**model, "pretrained": self.pretrained}
        if self.folder is not None and "folder" in model:
            place = copied_task.folder_for(model["family"], model["folder"], self.folder)
            model = {**model, "folder": place}
        return {**tree, "model": model}

    def check_pretrained(self, checkpoint: Checkpoint) -> None:
        """Check that the folder of the pretrained model exists; of a new one also its weights.

        Reads the disk. Raises SettingsError.
        """
        settings = self.settings(checkpoint) or {}
        folder = settings.get("model", {}).get("pretrained")
        if folder is not None:
            _check_moved(folder, checkpoint, is_new=self.pretrained is not None)

    def restarts(self, after: int, upto: int) -> list[Restart]:
        """The resumes from checkpoints of the steps [`after`, `upto`). Reads the disk.

        Of several at one step the last counts: the results of the others were replaced.
        """
        events = json_lines(self.folder / run_folder.EVENTS) if self.folder is not None else ()
        found = {}
        for event in events:
            with suppress(KeyError, TypeError):  # of another version
                if event["kind"] == "resumed" and after <= event["step"] < upto:
                    found[event["step"]] = _restart(event["step"], event["facts"])
        return [found[step] for step in sorted(found)]


@dataclass(frozen=True)
class Restart:
    """A resume from a checkpoint by another process."""

    step: int
    writer: tuple[str, int]
    """Engine and world size of the process that wrote the checkpoint."""
    reset: tuple[ResetPart, ...]
    """State that was reinitialized."""
    changes: tuple[str, ...]


def _restart(step: int, facts: Mapping[str, Any]) -> Restart:
    writer = facts["written_by"]
    return Restart(
        step=step,
        writer=(writer["engine"], writer["world_size"]),
        reset=tuple(facts["reset"]),
        changes=tuple(facts["changes"]),
    )


def find_saved(word: str, command: str, sets: Sequence[str] = ()) -> SavedRun:
    """What `word`, typed after `command`, names; `sets` are the arguments of MOVED.

    Reads the disk. Raises SettingsError where there is no run or checkpoint, none was saved, or a
    file of the run is damaged.
    """
    pretrained = moved_to(sets)
    where = f"the command line: {command} {word}"
    try:
        return replace(_find_saved(Path(word), word, command, where), pretrained=pretrained)
    except PermissionError as error:
        raise checkpoint_search.unreadable(error, where) from error


def _find_saved(path: Path, word: str, command: str, where: str) -> SavedRun:
    named = path if (path / manifest.NAME).is_file() else None
    folder: Path | None = path if named is None else _run_of(path)
    if folder is not None and not run_folder.is_run_folder(folder):
        folder = None
    if folder is None and named is None:
        raise checkpoint_search.no_run(path, where, command)
    if folder is not None:
        records.check(folder)
    checkpoints = checkpoint_search.checkpoints(folder) if folder is not None else {}
    if not checkpoints and named is None:
        message = f"{path} has no checkpoint"
        allowed = "a run with a checkpoint; see save.every and save.last"
        raise SettingsError.of(message, value=word, where=where, allowed=allowed)
    return SavedRun(folder, named, checkpoints)


def _run_of(checkpoint: Path) -> Path:
    """The run folder of a checkpoint, also of the links last and best."""
    if checkpoint.is_symlink():
        return checkpoint.parent
    return checkpoint.absolute().parent.parent


def chosen(run: SavedRun, name: str | None) -> Path:
    """The checkpoint `name`: best, last or a step; None: the best one, or else the last.

    Raises SettingsError if there is none of that name.
    """
    if name is None:
        name = retention.BEST if run.best is not None else retention.LAST
        if run.named is not None:
            return run.named
    if name == retention.BEST and run.best is not None:
        return run.best
    if name == retention.LAST and run.checkpoints:
        return run.checkpoints[max(run.checkpoints)]
    if name.isdigit() and int(name) in run.checkpoints:
        return run.checkpoints[int(name)]
    steps = [str(step) for step in run.checkpoints]
    names = ([retention.BEST] * (run.best is not None)) + [retention.LAST, *steps]
    raise SettingsError.of(
        f"no checkpoint '{name}' in {run.folder or run.named}",
        value=name,
        where=f"command line: --checkpoint {name}",
        allowed=", ".join(names),
        did_you_mean=nearest_match(name, names),
    )
