"""Which stages are trained, and which weights --from names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import selection
from launcher.config.options import FROM
from launcher.config.provenance import CLI_LAYER, STAGED_MODE, CliArgs, Origin, TypedEntry
from launcher.config.selection import choose
from launcher.run_folder.checkpoint_search import AUTO
from launcher.stages import record
from models.catalog import Stage
from training.checkpoint import retention
from training.checkpoint.manifest import MODEL, NAME


def stages(args: CliArgs) -> tuple[Stage, ...]:
    """The stages to train one after the other; empty: a single run.

    Invalid stages give none here; resolving the settings reports them. Reads settings files.
    """
    choice = choose(args)
    if choice.mode != STAGED_MODE or choice.diagnostics:
        return ()
    chosen = selection.select_stages(choice.stages, selection.declared_stages(choice.family))
    is_legal = not choice.stages or [stage.name for stage in chosen] == list(choice.stages)
    return chosen if is_legal and len(chosen) > 1 else ()


def with_weights(args: CliArgs) -> tuple[CliArgs, list[Diagnostic]]:
    """The arguments of a single run with --from as a setting, and its errors.

    Reads settings files, and looks at names.
    """
    if args.weights is None:
        return args, []
    choice = choose(args)
    stage = {declared.name: declared for declared in selection.declared_stages(choice.family)}.get(
        choice.stage or ""
    )
    return from_of(args, stage)


def from_of(args: CliArgs, stage: Stage | None) -> tuple[CliArgs, list[Diagnostic]]:
    """The arguments with --from as a setting of `stage`, and its errors."""
    if args.weights is None:
        return args, []
    option = f"{FROM.flag} {args.weights}"
    rest = replace(args, weights=None)
    if args.resume not in (None, AUTO):
        what = f"{option}: a resumed run loads weights from its own checkpoint"
        return rest, [_fault(what, option, f"{FROM.flag}  with a new run", "leave it out")]
    if stage is None:
        what = f"{option} needs a stage, but none is selected"
        return rest, [_fault(what, option, "with  --mode staged --stage NAME")]
    if stage.loads is None:
        what = f"{option}: stage {stage.name} starts from random weights"
        return rest, [_fault(what, option, "with a later stage", "leave it out")]
    value, diagnostics = args.weights, []
    try:
        value = str(find(args.weights, stage))
    except SettingsError as error:
        diagnostics = list(error.diagnostics)
    filled = TypedEntry(stage.loads, value, Origin(CLI_LAYER, option), FROM.flag)
    return replace(rest, filled=[*args.filled, filled]), diagnostics


def _fault(what: str, where: str, allowed: str, fix: str | None = None) -> Diagnostic:
    return Diagnostic(what, key=FROM.flag, where=where, allowed=allowed, fix=fix)


_LEGAL = "a run folder, one of its checkpoints, an export or a safetensors file"


def find(word: str, stage: Stage) -> Path:
    """The value of the setting `stage.loads`. Looks at names only. Raises SettingsError.

    Of a run the best checkpoint, or else the last, or else the newest one.
    """
    path = Path(word)
    where = f"--from {word}"
    if path.is_file():
        return path
    if not path.is_dir():
        raise _refusal(f"'{word}' does not exist", word, where)
    pipeline = record.load(path)
    if pipeline is not None:
        path = _newest(pipeline, stage, where)
    steps = sorted((path / retention.CHECKPOINTS).glob("step-*"), reverse=True)
    for folder in (path, path / retention.BEST):
        if _has_weights(folder):
            return path
    for folder in (path / retention.LAST, *steps):
        if _has_weights(folder):
            return folder
    raise _refusal(f"'{path}' holds no weights for stage {stage.name}", word, where)


def _has_weights(folder: Path) -> bool:
    """Whether a folder holds a complete checkpoint, or an export."""
    return any((folder / name).is_file() for name in (MODEL, NAME))


def _newest(pipeline: record.PipelineRecord, stage: Stage, where: str) -> Path:
    """The run of the latest stage of a pipeline whose weights `stage` takes."""
    matching = [folder for name, folder in pipeline.stages.items() if name in stage.of]
    if matching:
        return matching[-1]
    whose, there = " or ".join(stage.of), ", ".join(pipeline.stages)
    what = f"{pipeline.folder} has no stage {whose}, whose weights stage {stage.name} takes"
    raise SettingsError.of(what, value=str(pipeline.folder), where=where, allowed=f"it has {there}")


def _refusal(what: str, word: str, where: str) -> SettingsError:
    return SettingsError.of(what, key="--from", value=word, where=where, allowed=_LEGAL)
