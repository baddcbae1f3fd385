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
from launcher.run_folder.reader import RunReader
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
    declared = {stage.name: stage for stage in selection.declared_stages(choice.family)}
    return from_of(args, declared.get(choice.stage or ""))


def from_of(args: CliArgs, stage: Stage | None) -> tuple[CliArgs, list[Diagnostic]]:
    """The arguments with --from as a setting of `stage`, and its errors."""
    if args.weights is None:
        return args, []
    option, rest = f"{FROM.flag} {args.weights}", replace(args, weights=None)

    def refused(what: str, allowed: str, fix: str | None = None) -> list[Diagnostic]:
        message = f"{option}{what}"
        return [Diagnostic(message, key=FROM.flag, where=option, allowed=allowed, fix=fix)]

    if args.resume not in (None, AUTO):
        what = ": a resumed run loads weights from its own checkpoint"
        return rest, refused(what, f"{FROM.flag}  with a new run", "leave it out")
    if stage is None:
        what = " needs a stage, but none is selected"
        return rest, refused(what, "with  --mode staged --stage NAME")
    if stage.loads is None:
        what = f": stage {stage.name} starts from random weights"
        return rest, refused(what, "with a later stage", "leave it out")
    value, diagnostics = args.weights, []
    try:
        value = str(find(args.weights, stage))
    except SettingsError as error:
        diagnostics = list(error.diagnostics)
    filled = TypedEntry(stage.loads, value, Origin(CLI_LAYER, option), FROM.flag)
    return replace(rest, filled=[*args.filled, filled]), diagnostics


def find(word: str, stage: Stage) -> Path:
    """The value of the setting `stage.loads`. Looks at names only. Raises SettingsError.

    Of a run the best checkpoint, or else the last, or else the newest one.
    """
    path, where = Path(word), f"--from {word}"
    if path.is_file():
        return path
    what = f"'{word}' does not exist"
    if path.is_dir():
        if folders := RunReader(path).stages():
            matching = [folder for name, folder in folders.items() if name in stage.of]
            if not matching:
                what = f"{path} has no stage {' or '.join(stage.of)}"
                allowed = f"it has {', '.join(folders)}"
                raise SettingsError.of(what, value=str(path), where=where, allowed=allowed)
            path = matching[-1]
        steps = sorted((path / retention.CHECKPOINTS).glob("step-*"), reverse=True)
        for folder in (path, path / retention.BEST, path / retention.LAST, *steps):
            # A complete checkpoint, or an export; the best one is found by the folder of the run.
            if any((folder / name).is_file() for name in (MODEL, NAME)):
                return path if folder.name == retention.BEST else folder
        what = f"'{path}' holds no weights for stage {stage.name}"
    allowed = "a run folder, one of its checkpoints, an export or a safetensors file"
    raise SettingsError.of(what, key=FROM.flag, value=word, where=where, allowed=allowed)
