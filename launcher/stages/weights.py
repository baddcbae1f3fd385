"""Where the first weights of a stage lie, from what a person typed behind --from."""

from __future__ import annotations

from pathlib import Path

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.resume.find import holds_run
from launcher.stages import record
from models.catalog import Stage
from training.checkpoint import retention
from training.checkpoint.manifest import MODEL

_LEGAL = "a run folder, one of its checkpoints, an export or a safetensors file"


def find(word: str, stage: Stage) -> Path:
    """What the setting `stage.loads` becomes. Looks at names only. Raises SettingsError.

    Of a run the best checkpoint, or else the last one, that holds weights by themselves.
    """
    path = Path(word)
    place = f"--from {word}"
    if path.is_file():
        return path
    if not path.is_dir():
        raise _refusal(f"there is no '{word}'", word, place)
    chain = record.load(path)
    if chain is not None:
        path = _newest(chain, stage, place)
    if (path / MODEL).is_file() or (path / retention.BEST / MODEL).is_file():
        return path
    if (path / retention.LAST / MODEL).is_file():
        return path / retention.LAST
    fix = None
    if holds_run(path):
        fix = f"{PROGRAM} export {path} --format safetensors  and  --from  what that writes"
    raise _refusal(
        f"'{path}' holds no weights for stage {stage.name} to begin with", word, place, fix
    )


def _newest(chain: record.Record, stage: Stage, place: str) -> Path:
    """Of a chain the run of the latest stage whose weights `stage` takes."""
    found = [folder for name, folder in chain.stages.items() if name in stage.of]
    if found:
        return found[-1]
    whose, there = " or ".join(stage.of), ", ".join(chain.stages)
    what = f"{chain.folder} has no stage {whose}, whose weights stage {stage.name} takes"
    raise SettingsError(
        [Diagnostic(what, value=str(chain.folder), where=place, allowed=f"it has {there}")]
    )


def _refusal(what: str, word: str, place: str, fix: str | None = None) -> SettingsError:
    return SettingsError(
        [Diagnostic(what, key="--from", value=word, where=place, allowed=_LEGAL, fix=fix)]
    )
