"""Which stages a person asks for, and the settings that --from comes to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.cli.options import FROM
from launcher.config import cli_args as typed
from launcher.config import staging
from launcher.config.resolved import STAGED, CliArgs, Filled
from launcher.config.selection import choose
from launcher.resume.find import AUTO, holds_run
from launcher.stages import record
from models.catalog import Stage
from training.checkpoint import retention
from training.checkpoint.manifest import MODEL


def stages(words: CliArgs) -> tuple[Stage, ...]:
    """The stages that are trained one after the other; none: it is an ordinary run.

    One stage alone is such a run, and so is what is wrong: that is told where settings are
    resolved. Reads settings files.
    """
    choice = choose(words, typed.read_files(words))
    if choice.mode != STAGED or choice.diagnostics:
        return ()
    found = staging.chosen(choice.stages, staging.declared(choice.family))
    is_legal = not choice.stages or [one.name for one in found] == list(choice.stages)
    return found if is_legal and len(found) > 1 else ()


def with_weights(words: CliArgs) -> tuple[CliArgs, list[Diagnostic]]:
    """The words of an ordinary run, with --from as the setting it stands for; and what is wrong.

    Reads settings files, and looks at names.
    """
    if words.weights is None:
        return words, []
    choice = choose(words, typed.read_files(words))
    found = {one.name: one for one in staging.declared(choice.family)}.get(choice.stage or "")
    return from_of(words, found)


def from_of(words: CliArgs, stage: Stage | None) -> tuple[CliArgs, list[Diagnostic]]:
    """The words with --from as a setting of `stage`, and what is wrong with it."""
    if words.weights is None:
        return words, []
    place = f"{FROM.flag} {words.weights}"
    rest = replace(words, weights=None)
    if words.resume not in (None, AUTO):
        what = f"{place}: a run that goes on has its weights from its own checkpoint"
        return rest, [_fault(what, place, f"{FROM.flag}  with a new run", "leave it out")]
    if stage is None:
        what = f"{place} names the first weights of a stage, and no stage is trained here"
        return rest, [_fault(what, place, "with  --mode staged --stage NAME")]
    if stage.loads is None:
        what = f"{place}: stage {stage.name} begins with random weights, and loads none"
        return rest, [_fault(what, place, "with a later stage", "leave it out")]
    value, diagnostics = words.weights, []
    try:
        value = str(find(words.weights, stage))
    except SettingsError as error:
        diagnostics = list(error.diagnostics)
    filled = Filled(stage.loads, value, FROM.flag, place)
    return replace(rest, filled=[*words.filled, filled]), diagnostics


def _fault(what: str, place: str, allowed: str, fix: str | None = None) -> Diagnostic:
    return Diagnostic(what, key=FROM.flag, where=place, allowed=allowed, fix=fix)


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
