"""The folder that a run leaves: chosen, made, and taken away again where nothing came of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.config import render
from launcher.config.provenance import Resolved
from launcher.config.render import ORIGINS, SETTINGS
from training.storage import Storage, storage_errors

if TYPE_CHECKING:
    from engines.base import World

LOG = "log.txt"
RESULT = "result.json"
STAGES = "stages.json"
"""In the folder of a chain of stages: which runs they are, and the folder of each."""
METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
EXPORT = "export-"
"""What folders of an exported model begin with."""
CHECKPOINTS = "checkpoints"
LINKS = ("best", "last")
REPORT = "report.html"
PARENT = Path("runs")
_OF_A_RUN = (SETTINGS, ORIGINS, STAGES, RESULT, METRICS, CHECKPOINTS)


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, and what of it was there before the run."""

    path: Path
    parents: tuple[Path, ...]
    """Folders above it that were made for it, the innermost first."""
    before: frozenset[str] | None
    """Names that lay in it before; None: it was made for the run."""
    goes_on: bool = False
    """The run in it began earlier: all of it stays."""
    copied_bytes: int = 0
    """Of metrics.jsonl, from the run that it goes on from."""

    def discard(self) -> bool:
        """Take away all that the run wrote, unless it trained already; whether it is gone.

        Touches the disk.
        """
        if self.goes_on or trained(self.path, self.copied_bytes):
            return False
        if self.before is None:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            clear(self.path, self.before)
        for parent in self.parents:
            try:
                parent.rmdir()
            except OSError:  # another run has moved in meanwhile
                break
        return True


def name(model: str, mode: str, engine: str, now: datetime) -> str:
    """`language-small-fast-zero2-20250131-142501`."""
    return "-".join((model.replace(":", "-"), mode, engine, now.strftime("%Y%m%d-%H%M%S")))


def free(chosen_name: str) -> Path:
    """The folder below `runs/` of that name, with a number behind it where that is taken."""
    path, number = PARENT / chosen_name, 1
    while path.exists():
        number += 1
        path = PARENT / f"{chosen_name}-{number}"
    return path


def check(out: Path, place: str) -> None:
    """Whether a run may write into `out`, which `place` asked for; makes nothing.

    Raises SettingsError.
    """
    if _exists(out, place):
        _check_existing(out, place)
        return
    above = next((one for one in out.absolute().parents if _exists(one, place)), Path("/"))
    if not above.is_dir():
        raise _refusal(out, place, f"the run folder {out} would lie in a file, {above}")
    if not os.access(above, os.W_OK | os.X_OK):
        what = f"the run folder {out} cannot be made: {above} may not be written to"
        raise _refusal(out, place, what)


def is_free(folder: Path) -> bool:
    """Whether no run has left anything in `folder`, which need not be there. Reads the disk."""
    return not any((folder / part).exists() for part in _OF_A_RUN)


def clear(folder: Path, but: Collection[str]) -> None:
    """Take away what a run has left in `folder`, but for the names `but`. Touches the disk."""
    for entry in folder.iterdir():
        if entry.name not in but:
            _remove(entry)


def make(
    resolved: Resolved,
    out: Path | None,
    chosen_name: str,
    fill: Callable[[Path], None] = lambda folder: None,
) -> RunFolder:
    """Make the run's folder and write its settings and their origins into it.

    `out` is what the person asked for; None: `runs/` and `chosen_name`, with a number behind it
    where that is taken. `fill` lays what else the run begins with into it. Raises SettingsError,
    and has left nothing behind then. Touches the disk.
    """

    def write(folder: Path) -> None:
        write_new(folder / SETTINGS, render.render_settings(resolved))
        write_new(folder / ORIGINS, render.render_origins(resolved))
        fill(folder)
        (folder / LOG).touch()

    folder = begin(out, chosen_name, write)
    return replace(folder, copied_bytes=_size(folder.path / METRICS))


def begin(out: Path | None, chosen_name: str, write: Callable[[Path], None]) -> RunFolder:
    """Make a folder as `make` does, and let `write` begin what is to be in it.

    Raises SettingsError, and has left nothing behind then. Touches the disk.
    """
    place = f"--out {out}" if out is not None else "no --out was given"
    wanted = PARENT / chosen_name if out is None else out
    # Of a name of our own only the parent: the name may be taken while we look, and is then passed.
    check(wanted.parent if out is None else wanted, place)
    folder: RunFolder | None = None
    try:
        folder = _fresh(wanted) if out is None else _given(wanted)
        write(folder.path)
    except FileExistsError as fault:
        # Another start was faster; what lies there is its own.
        raise _taken(wanted, place) from fault
    except OSError as fault:
        if folder is not None:
            folder.discard()
        reason = fault.strerror or str(fault)
        what = f"the run folder {wanted} cannot be written: {reason}"
        raise _refusal(wanted, place, what) from fault
    return folder


def reopen(folder: Path) -> RunFolder:
    """The folder of a run that goes on in it; nothing is written. Raises SettingsError."""
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise _refusal(folder, f"the run in {folder}", f"{folder} may not be written to")
    return RunFolder(folder, (), frozenset(), goes_on=True)


def renew(folder: Path, resolved: Resolved, door: Path | None = None) -> None:
    """Put the settings of a run that goes on in the place of those it had. Touches the disk.

    For rank 0, once the ranks have restored: until then the folder stays as it was. Each file is
    replaced at once. Raises StorageError.
    """
    for name, text in (
        (SETTINGS, render.render_settings(resolved)),
        (ORIGINS, render.render_origins(resolved)),
    ):
        with storage_errors(folder / name):
            Storage(folder, door).atomic_write(name, text.encode())


def write_new(path: Path, text: str) -> None:
    """Write a file that there is not yet. Raises OSError."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def trained(folder: Path, copied_bytes: int = 0) -> bool:
    """Whether the run in `folder` came so far that something was logged, or saved.

    `copied_bytes` of its metrics come from another run. Reads the disk.
    """
    return _size(folder / METRICS) > copied_bytes or (folder / CHECKPOINTS).exists()


def is_record(name: str) -> bool:
    """Whether a file of that name in a run folder tells of the run, and not of its task."""
    return name in (*_OF_A_RUN, LOG) or name.startswith("events")


def log(folder: Path, text: str) -> None:
    """Append to the run's log what the console was told. Touches the disk.

    Where the folder has gone or the disk is full nothing is kept: that must not hide the fault.
    """
    with suppress(OSError), (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(text.rstrip() + "\n")


def share(folder: Path | None, world: World) -> Path | None:
    """Rank 0's run folder, on every rank. Collective.

    Only where torchrun or srun started the ranks need they be told: the name holds the time.
    """
    text = world.broadcast(b"" if folder is None else os.fsencode(folder.absolute()))
    if world.rank == 0:
        return folder
    return Path(os.fsdecode(text)) if text else None


def _fresh(wanted: Path) -> RunFolder:
    parents = _make_parents(wanted)
    number = 1
    while True:
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return RunFolder(path, parents, None)


def _given(wanted: Path) -> RunFolder:
    if wanted.exists():
        return RunFolder(wanted, (), frozenset(os.listdir(wanted)))
    parents = _make_parents(wanted)
    wanted.mkdir()
    return RunFolder(wanted, parents, None)


def _make_parents(path: Path) -> tuple[Path, ...]:
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    return tuple(missing)


def _check_existing(out: Path, place: str) -> None:
    if not out.is_dir():
        raise _refusal(out, place, f"the run folder {out} is a file")
    if not os.access(out, os.R_OK | os.W_OK | os.X_OK):
        raise _refusal(out, place, f"the run folder {out} may not be written to")
    if not is_free(out):
        raise _taken(out, place)


def _taken(out: Path, place: str) -> SettingsError:
    fix = f"{PROGRAM} resume {out}  to go on with it"
    return _refusal(out, place, f"the run folder {out} holds another run", fix)


def _refusal(out: Path, place: str, what: str, fix: str | None = None) -> SettingsError:
    allowed = "a new or empty folder that you may write to; without --out, one below runs/"
    return SettingsError([Diagnostic(what, value=str(out), where=place, allowed=allowed, fix=fix)])


def _exists(path: Path, place: str) -> bool:
    try:
        return path.exists()
    except OSError as fault:  # no permission to look, or a name that is too long
        reason = fault.strerror or str(fault)
        raise _refusal(path, place, f"{path} cannot be opened: {reason}") from fault


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
