"""Finds the run that goes on, and its checkpoint, from what a person typed behind --resume."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, listed, nearest_match
from launcher.config import layers as typed
from launcher.config.provenance import CliArgs, Entry, ResetPart, find_node
from launcher.config.selection import choose
from launcher.config.settings_file import node_value, read_settings_file
from launcher.run_folder import run_folder
from training.checkpoint import checksums, manifest, retention
from training.checkpoint.manifest import CheckpointError
from training.settings import nested

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint

AUTO = "auto"
_LEGAL = "auto, a run folder, one of its checkpoints, or the number of a step"
_FAULTS = (OSError, ValueError, KeyError, TypeError, RecursionError, CheckpointError)


@dataclass(frozen=True)
class Kept:
    """A checkpoint, as far as its JSON tells: no tensor of it was looked at."""

    step: int
    settings: Mapping[str, Any] | None
    """Every setting that it was made with by dotted key; None: an older version wrote it."""


@dataclass(frozen=True)
class Found:
    """A run that can go on."""

    folder: Path
    asked: int | None
    """The step that was named; None: the newest whole checkpoint."""
    kept: Kept | None
    """The checkpoint it most likely goes on from; None: there is none, and it begins again."""
    result: Mapping[str, Any] | None
    """Its result.json; None: it did not come to its end."""

    @property
    def is_completed(self) -> bool:
        """Whether it went as far as its settings said."""
        return self.result is not None and self.result.get("status") == "completed"


def find(words: CliArgs, out: Path | None) -> Found | None:
    """The run that goes on; None: with `auto` there is none, and a new one begins.

    Reads JSON and settings files only. Raises SettingsError.
    """
    word = words.resume or AUTO
    place = f"{words.resume_option} {word}"
    if word == AUTO:
        return _latest(words) if out is None else _unfinished(out, place)
    if word.isdigit():
        return _found(_run_of_step(out, place), int(word), place)
    folder, step = _named(Path(word), place)
    return _found(folder, step, place)


def holds_run(folder: Path) -> bool:
    """Whether a run has begun in `folder`."""
    return (folder / run_folder.SETTINGS).is_file()


def is_same(one: Path, other: Path) -> bool:
    """Whether two names are of one folder."""
    return one.resolve() == other.resolve()


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint whose JSON can be read; None: there is none."""
    return next((kept.step for kept in _kept(folder)), None)


def result_of(folder: Path) -> Mapping[str, Any] | None:
    """How the run in `folder` ended; None: it did not, or nobody can read it. Reads the disk."""
    try:
        result = json.loads((folder / run_folder.RESULT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return result if isinstance(result, dict) else None


def _unfinished(out: Path, place: str) -> Found | None:
    """The run in `out`, unless it has nothing to go on from."""
    if not holds_run(out):
        return None
    found = _found(out, None, place)
    return found if found.kept is not None or found.is_completed else None


def _latest(words: CliArgs) -> Found | None:
    """The newest run of the same model and mode that has a checkpoint and was not completed."""
    choice = choose(words)
    if choice.diagnostics:
        return None
    wanted = [choice.family, choice.size, choice.mode]
    for folder in _runs():
        try:
            found = _found(folder, None, "")
            root = read_settings_file(folder / run_folder.SETTINGS)
        except SettingsError:
            continue
        if found.kept is None or found.is_completed:
            continue
        nodes = [find_node(root, key) for key in ("model.family", "model.size", "mode")]
        if [node and node.value for node in nodes] == wanted:
            return found
    return None


def _runs() -> list[Path]:
    """The run folders below runs/, that which was begun or gone on with last first."""
    found = run_folder.PARENT.glob(f"*/{run_folder.SETTINGS}")
    times = sorted(((path.stat().st_mtime_ns, path.parent) for path in found), reverse=True)
    return [folder for _, folder in times]


def _run_of_step(out: Path | None, place: str) -> Path:
    if out is not None:
        if not holds_run(out):
            raise _refusal(f"{out} holds no run to go on with", str(out), f"{place}, --out {out}")
        return out
    runs = _runs()
    if not runs:
        what = f"there is no run below {run_folder.PARENT}/ whose checkpoint this could be"
        raise _refusal(what, place.split()[-1], place)
    return runs[0]


def _named(path: Path, place: str) -> tuple[Path, int | None]:
    """The run folder that `path` is or lies in, and the step where it is a checkpoint."""
    step = manifest.step_of(path.resolve().name)
    folder = path
    if step is not None and path.is_symlink():  # best, last
        folder = path.parent
    elif step is not None:
        folder = (path if path.name else path.resolve()).parent.parent
    if holds_run(folder):
        return folder, step
    if path.exists():
        what = f"'{path}' holds no run: there is no {run_folder.SETTINGS} in it"
    else:
        what = f"there is no run folder '{path}'"
    there = [run.name for run in _siblings(path)]
    near = nearest_match(path.name, there)
    near = near and str(path.parent / near)
    raise _refusal(what, str(path), place, near)


def _siblings(path: Path) -> Iterator[Path]:
    try:
        yield from (one for one in path.parent.iterdir() if holds_run(one))
    except OSError:
        return


def _found(folder: Path, step: int | None, place: str) -> Found:
    kept = next(_kept(folder), None) if step is None else _kept_at(folder, step, place)
    if kept is None and (steps := _steps(folder)):
        _kept_at(folder, steps[0], place)  # says what is wrong with it
    return Found(folder, step, kept, result_of(folder))


def _kept_at(folder: Path, step: int, place: str) -> Kept:
    steps = _steps(folder)
    if step not in steps:
        near = min(steps, key=lambda one: abs(one - step), default=None)
        names = listed([str(one) for one in sorted(steps)], "resume RUN")
        raise SettingsError(
            [
                Diagnostic(
                    f"{folder} has no checkpoint of step {step}",
                    value=step,
                    where=place,
                    allowed=names if steps else "a run that has saved a checkpoint",
                    did_you_mean=None if near is None else str(near),
                    fix=None if near is None else f"{_again(folder, near)}",
                )
            ]
        )
    try:
        return _read(folder, step)
    except _FAULTS as fault:
        raise _refusal(f"the checkpoint of step {step} cannot be used: {fault}", step, place) from (
            fault
        )


def _again(folder: Path, step: int) -> str:
    checkpoint = folder / run_folder.CHECKPOINTS / manifest.step_folder(step)
    return f"{PROGRAM} resume {checkpoint}"


def _kept(folder: Path) -> Iterator[Kept]:
    """The checkpoints of a run whose JSON can be read, newest first."""
    for step in _steps(folder):
        try:
            yield _read(folder, step)
        except _FAULTS:
            continue  # the ranks tell of it, and of what else is broken in it


def _steps(folder: Path) -> Sequence[int]:
    """The steps of which there is a folder, newest first."""
    try:
        names = [path.name for path in (folder / run_folder.CHECKPOINTS).iterdir()]
    except OSError:
        return []
    steps = [manifest.step_of(name) for name in names]
    return sorted((step for step in steps if step is not None), reverse=True)


def _read(folder: Path, step: int) -> Kept:
    checkpoint = folder / run_folder.CHECKPOINTS / manifest.step_folder(step)
    files = manifest.read(checkpoint).files
    checksums.check(checkpoint, tuple(file for file in files if file.name == manifest.STATE))
    facts = json.loads((checkpoint / manifest.STATE).read_bytes())["facts"]
    settings = facts.get("settings")
    if settings is not None and not isinstance(settings, dict):
        raise ValueError(f"{checkpoint / manifest.STATE} holds no settings")
    return Kept(step, settings)


def _refusal(what: str, value: Any, place: str, near: str | None = None) -> SettingsError:
    fix = near and f"{PROGRAM} resume {near}"
    return SettingsError(
        [Diagnostic(what, value=value, where=place, allowed=_LEGAL, did_you_mean=near, fix=fix)]
    )


def typed_choices(words: CliArgs) -> dict[str, Entry]:
    """What is named now of the model and where it is found, whatever the run had."""
    return typed.chosen_entries(words)


@dataclass(frozen=True)
class ResumeRequest:
    """What the ranks of a run that goes on are told."""

    source: Path
    """The run folder whose checkpoints are looked through; mostly the one that is written to."""
    step: int | None = None
    """The checkpoint of this step and no other; None: the newest whole one, or none at all."""
    reset: Sequence[ResetPart] = ()
    """What begins anew in spite of the checkpoint."""
    changes: Sequence[str] = ()
    """What differs from the settings that the checkpoint was made with, a line each."""
    until: int | None = None
    """Go no further than this step: the end of a replay."""

    def rewinds(self, folder: Path) -> bool:
        """Whether a person may let the run in `folder` take steps again in another way."""
        asked = self.step is not None or bool(self.reset)
        return asked and self.source.resolve() == folder.resolve()

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON."""
        return {**asdict(self), "source": str(self.source)}


_ALLOWED_SAVED = "a run folder, or one of its checkpoints"


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
    reset: tuple[ResetPart, ...]
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


def find_saved(word: str, command: str) -> SavedRun:
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
    if stages := _stage_folders(path):
        what = f"'{path}' holds several runs, one for each stage"
        near, fix = None, f"{PROGRAM} {command} {stages[-1]}"
    return Diagnostic(
        what, value=str(path), where=place, allowed=_ALLOWED_SAVED, did_you_mean=near, fix=fix
    )


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError:
        return


def _stage_folders(folder: Path) -> list[Path]:
    """The run folders of the stages in `folder`; empty if there are none."""
    try:
        stages = json.loads((folder / run_folder.STAGES).read_bytes())["stages"]
        return [folder / stage["folder"] for stage in stages]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
