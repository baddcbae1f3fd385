"""The chain of stages that goes on, from what a person typed behind --resume."""

from __future__ import annotations

from pathlib import Path

from launcher.base.diagnostics import SettingsError
from launcher.config import cli_args as typed
from launcher.config import staging
from launcher.config.entries import find as node_of
from launcher.config.nodes import plain
from launcher.config.resolved import CliArgs
from launcher.config.selection import choose
from launcher.config.settings_file import read
from launcher.resume import find as resume
from launcher.run_folder import run_folder
from launcher.stages import asked, record
from launcher.stages.record import Record
from models.catalog import Stage


def find(words: CliArgs, out: Path | None) -> Record | None:
    """The chain that goes on; None: there is none, or what goes on is no chain.

    With `auto` that in `out`, or the newest of the same model and stages below runs/ that was not
    completed. Reads the disk.
    """
    if words.resume is None:
        return None
    if words.resume != resume.AUTO:
        return record.load(Path(words.resume))
    if out is not None:
        return record.load(out)
    names = [one.name for one in asked.stages(words)]
    return _latest(words, names) if names else None


def stages(chain: Record) -> dict[str, Stage]:
    """What the family of a chain declares of its stages, by name. Reads the disk."""
    try:
        family = node_of(read(_first(chain)), "model.family")
        declared = staging.declared(family.value) if family is not None else ()
    except SettingsError:  # such as a task of one's own that has moved; its run tells of it
        return {}
    return {one.name: one for one in declared}


def _first(chain: Record) -> Path:
    return next(iter(chain.stages.values())) / run_folder.SETTINGS


def _latest(words: CliArgs, names: list[str]) -> Record | None:
    choice = choose(words, typed.read_files(words))
    found = run_folder.PARENT.glob(f"*/{run_folder.STAGES}")
    times = sorted(((path.stat().st_mtime_ns, path.parent) for path in found), reverse=True)
    for _, folder in times:
        chain = record.load(folder)
        if chain is None or list(chain.stages) != names:
            continue
        if all(map(record.is_completed, chain.stages.values())):
            continue
        if _model(chain) == [choice.family, choice.size]:
            return chain
    return None


def _model(chain: Record) -> list[object]:
    """The family and size of a chain."""
    try:
        root = read(_first(chain))
    except SettingsError:
        return []
    nodes = [node_of(root, key) for key in ("model.family", "model.size")]
    return [node and plain(node) for node in nodes]
