"""A pipeline of stages, resolved as a whole before the first one starts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.config.check import why_ineffective
from launcher.config.options import FROM, STAGE
from launcher.config.provenance import CLI_LAYER, STAGED_MODE, CliArgs, Origin, Resolved, Setting
from launcher.config.selection import STAGES, choose, declared_stages, select_stages
from launcher.config.settings_file import read_values
from launcher.run.prepare import prepare_run
from launcher.run_folder import checkpoint_search, run_folder
from launcher.run_folder.checkpoint_search import AUTO
from launcher.run_folder.reader import RunReader
from launcher.run_folder.run_plan import ResumeRequest, RunPlan
from launcher.stages import record
from models.catalog import Stage
from training.checkpoint import retention
from training.checkpoint.manifest import MODEL, NAME


@dataclass(frozen=True)
class PipelineStage:
    """One stage of a pipeline."""

    name: str
    sentence: str
    folder: Path
    start: RunPlan | None
    """Its run; None: already completed."""


@dataclass(frozen=True)
class Pipeline:
    """Stages to train one after the other."""

    folder: Path
    entries: Sequence[PipelineStage]
    is_resumed: bool = False
    """Its folder exists: it started earlier."""
    line: str | None = None
    """Message about resuming; None: --resume was not given."""

    is_rank_0 = True
    """Each stage runs in its own processes: this one reports to the user."""

    @property
    def nothing_left(self) -> Mapping[str, Any] | None:
        """The result of stages that were all completed before; None: some are left. Reads the disk."""
        if self.left:
            return None
        result = record.summarize(self.folders)
        return {"folder": str(self.folder), **result, "reason": "nothing is left to do"}

    def title(self, stage: PipelineStage) -> str:
        """`stage 1 of 2: encoder, what is trained there`."""
        position = f"stage {self.entries.index(stage) + 1} of {len(self.entries)}"
        return f"{position}: {stage.name}" + (f", {stage.sentence}" if stage.sentence else "")

    @property
    def folders(self) -> dict[str, Path]:
        """The run folder of each stage."""
        return {entry.name: entry.folder for entry in self.entries}

    @property
    def left(self) -> list[tuple[PipelineStage, RunPlan]]:
        """The stages still to train."""
        return [(entry, entry.start) for entry in self.entries if entry.start is not None]

    @property
    def warnings(self) -> list[Diagnostic]:
        """Warnings of all stages, each once, without settings that another stage uses."""
        runs = [ready.resolved for _, ready in self.left]
        distinct: list[Diagnostic] = []

        def is_used(key: str, run: Resolved) -> bool:
            return key in run.values and why_ineffective(run.values, key) is None

        for run in runs:
            for warning in run.warnings:
                key = warning.key if warning.key in run.values else None
                is_of_other = key and not is_used(key, run) and any(is_used(key, r) for r in runs)
                if not is_of_other:
                    _add(distinct, warning)
        return distinct


Prepare = Callable[[CliArgs, Path | None, list[Diagnostic]], RunPlan]
"""Prepares one run, as `launcher.run.prepare` does."""


def prepare(args: CliArgs, out: Path | None, diagnostics: Sequence[Diagnostic]) -> RunPlan | Pipeline:
    """Resolve one run, or all runs of a pipeline; start nothing.

    Reads settings files and the JSON of resumed runs. Raises SettingsError with `diagnostics` and
    all other errors.
    """
    if (pipeline := prepare_pipeline(args, out, diagnostics)) is not None:
        return pipeline
    args, wrong = with_weights(args)
    return prepare_run(args, out, [*diagnostics, *wrong])


def prepare_pipeline(
    args: CliArgs, out: Path | None, diagnostics: Sequence[Diagnostic], prepare_stage: Prepare = prepare_run
) -> Pipeline | None:
    """The pipeline, each stage by `prepare_stage`; None for a single run, which is not resolved."""
    if args.resume is not None and (folder := _find(args, out)) is not None:
        return _resumed(folder, args, out, diagnostics, prepare_stage)
    stages = selected(args) if args.resume in (None, AUTO) else ()
    return _new(stages, args, out, diagnostics, prepare_stage) if stages else None


def _new(
    stages: Sequence[Stage],
    args: CliArgs,
    out: Path | None,
    diagnostics: Sequence[Diagnostic],
    prepare_stage: Prepare,
) -> Pipeline:
    args, wrong = from_of(args, stages[0])
    invalid = [*diagnostics, *wrong]
    line = None
    if args.resume is not None:
        line = f"{args.resume_option} {args.resume}: no run of these stages to resume"
        args = replace(args, resume=None)
    sets = [text for text in args.sets if text.partition("=")[0].strip() != STAGES]
    folder = out or run_folder.PARENT / STAGED_MODE
    entries: list[PipelineStage] = []
    for number, stage in enumerate(stages, start=1):
        where = f"stage {number} of {len(stages)}"
        turn = {STAGES: Setting([stage.name], Origin(CLI_LAYER, where))}
        filled = {**(args.filled if number == 1 else {}), **turn, **_weights(stage, entries)}
        made = _prepared(replace(args, sets=sets, filled=filled), invalid, prepare_stage)
        if out is None and number == 1 and made is not None:
            folder = run_folder.unused_path(made.name)
        inner = folder / record.child(number, stage.name)
        if made is not None:
            made = replace(made, out=inner, resume=ResumeRequest(inner), separate=True)
        entries.append(PipelineStage(stage.name, stage.sentence, inner, made))
    where = f"--out {folder}" if out else "no --out was given"
    invalid += run_folder.writing_errors(folder, where)
    if invalid:
        raise SettingsError(invalid)
    return Pipeline(folder, entries, line=line)


def _weights(stage: Stage, entries: Sequence[PipelineStage]) -> dict[str, Setting]:
    """The setting that loads the weights of the latest matching stage before this one."""
    before = [entry for entry in entries if entry.name in stage.of]
    if stage.loads is None or not before:
        return {}
    origin = Origin(CLI_LAYER, f"stage {before[-1].name} of this run")
    return {stage.loads: Setting(str(before[-1].folder), origin)}


def _prepared(args: CliArgs, diagnostics: list[Diagnostic], prepare_stage: Prepare) -> RunPlan | None:
    """One stage; None: it has errors, which are added to `diagnostics` once."""
    try:
        made = prepare_stage(args, None, [])
    except SettingsError as error:
        for diagnostic in error.diagnostics:
            _add(diagnostics, diagnostic)
        return None
    if made.launched is not None:  # ranks of torchrun or srun cannot end between stages
        source = made.launched.source
        started = Diagnostic(
            f"each stage runs in its own processes, but {source} started this one",
            where=f"mode {STAGED_MODE}" if args.resume is None else f"resume {args.resume}",
            allowed=f"one stage at a time under {source}",
            fix=f"{STAGE.flag} NAME  and for later stages  {FROM.flag} RUN  or resume one stage",
        )
        _add(diagnostics, started)
    return made


def _add(diagnostics: list[Diagnostic], diagnostic: Diagnostic) -> None:
    known = [(other.message, other.where) for other in diagnostics]
    if (diagnostic.message, diagnostic.where) not in known:
        diagnostics.append(diagnostic)


def _resumed(
    pipeline: Path, args: CliArgs, out: Path | None, diagnostics: Sequence[Diagnostic], prepare_stage: Prepare
) -> Pipeline:
    invalid = list(diagnostics)
    useless = {each.origin.where.partition(" ")[0]: each.origin.where for each in args.filled.values()}
    if args.weights is not None:
        useless[FROM.flag] = f"{FROM.flag} {args.weights}"
    if out is not None and out.resolve() != pipeline.resolve():
        useless["--out"] = f"--out {out}"
    folders = RunReader(pipeline).stages()
    for option, where in useless.items():
        message = f"{option} has no effect on the resumed stages of {pipeline}"
        fix = (
            f"leave out {option}  or resume the folder of one stage: {', '.join(map(str, folders.values()))}"
        )
        invalid.append(Diagnostic(message, key=option, where=where, fix=fix))
    try:
        family = _settings(folders).get("model.family")
        of_family = declared_stages(family) if family is not None else ()
    except SettingsError:  # such as a custom task that was moved; preparing its run reports that
        of_family = ()
    declared = {stage.name: stage for stage in of_family}
    entries: list[PipelineStage] = []
    for name, folder in folders.items():
        stage = declared.get(name, Stage(name, ""))
        made = None
        if not record.is_completed(folder):
            filled = _weights(stage, entries)
            content = replace(args, resume=str(folder), weights=None, filled=filled)
            if checkpoint_search.newest_step(folder) is None:
                content = replace(content, reset=())
            made = _prepared(content, invalid, prepare_stage)
        if made is not None:
            line = made.line if (folder / run_folder.METRICS).exists() else None
            made = replace(made, separate=True, line=line)
        entries.append(PipelineStage(name, stage.sentence, folder, made))
    if invalid:
        raise SettingsError(invalid)
    left = [entry.name for entry in entries if entry.start is not None]
    line = f"resuming {pipeline}: {', '.join(left)}"
    if not left:
        last = shlex.quote(str(entries[-1].folder))
        line = (
            f"nothing to do: all stages of {pipeline} are completed; "
            f"to train one longer: {PROGRAM} resume {last} --epochs N --reset schedule"
        )
    return Pipeline(pipeline, entries, True, line)


def _find(args: CliArgs, out: Path | None) -> Path | None:
    """The folder of the pipeline to resume; None: there is none, or a single run is resumed.

    With `auto` that in `out`, or the newest of the same model and stages below runs/ that was not
    completed. Reads the disk.
    """
    folder = out if args.resume == AUTO else Path(args.resume or "")
    if folder is not None:
        return folder if RunReader(folder).stages() else None
    names, choice = [stage.name for stage in selected(args)], choose(args)
    for folder in checkpoint_search.newest(run_folder.STAGES) if names else ():
        stages = RunReader(folder).stages()
        is_of_model = list(stages) == names and (
            checkpoint_search.model_of(_settings(stages)) == (choice.family, choice.model)
        )
        if is_of_model and not all(map(record.is_completed, stages.values())):
            return folder
    return None


def _settings(folders: Mapping[str, Path]) -> Mapping[str, Any]:
    """The settings of the first stage; none: they cannot be read, which preparing it reports."""
    try:
        first = next(iter(folders.values()))
        return read_values(first / run_folder.SETTINGS)
    except SettingsError:
        return {}


def selected(args: CliArgs) -> tuple[Stage, ...]:
    """The stages to train one after the other; empty: a single run.

    Invalid stages give none here; resolving the settings reports them. Reads settings files.
    """
    choice = choose(args)
    if choice.mode != STAGED_MODE or choice.diagnostics:
        return ()
    chosen = select_stages(choice.stages, declared_stages(choice.family))
    is_legal = not choice.stages or [stage.name for stage in chosen] == list(choice.stages)
    return chosen if is_legal and len(chosen) > 1 else ()


def with_weights(args: CliArgs) -> tuple[CliArgs, list[Diagnostic]]:
    """The arguments of a single run with --from as a setting, and its errors.

    Reads settings files, and looks at names.
    """
    if args.weights is None:
        return args, []
    choice = choose(args)
    declared = {stage.name: stage for stage in declared_stages(choice.family)}
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
        fix = f"--set model.start={shlex.quote(args.weights)}"
        return rest, refused(what, "with  --mode staged --stage NAME", fix)
    if stage.loads is None:
        what = f": stage {stage.name} starts from random weights"
        return rest, refused(what, "with a later stage", "leave it out")
    value, diagnostics = args.weights, []
    try:
        value = str(weights_in(args.weights, stage))
    except SettingsError as error:
        diagnostics = list(error.diagnostics)
    filled = {stage.loads: Setting(value, Origin(CLI_LAYER, option))}
    return replace(rest, filled={**args.filled, **filled}), diagnostics


def weights_in(word: str, stage: Stage) -> Path:
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
