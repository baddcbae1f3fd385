"""A pipeline of stages: resolved as a whole before the first one starts, and its files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from gearshift.launcher.config.check import why_ineffective
from gearshift.launcher.config.command_line import FROM, STAGE
from gearshift.launcher.config.provenance import (
    CLI_LAYER,
    STAGED_MODE,
    CliArgs,
    Origin,
    Resolved,
    Setting,
)
from gearshift.launcher.config.selection import STAGES, choose, declared_stages, select_stages
from gearshift.launcher.config.settings_file import read_values
from gearshift.launcher.run.prepare import collected, most_certain, prepare_run
from gearshift.launcher.run_folder import checkpoint_search, run_folder
from gearshift.launcher.run_folder.checkpoint_search import AUTO
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.models.catalog import Stage
from gearshift.training.checkpoint import retention
from gearshift.training.checkpoint.manifest import MODEL, NAME
from gearshift.training.logging.strict_json import encode, encode_bytes
from gearshift.training.storage import atomic_write, storage_errors

_STATUSES = {
    exit_codes.DONE: "completed",
    exit_codes.FAILURE: "failed",
    exit_codes.INVALID_INPUT: "failed",
}
_KEPT = ("status", "steps", "parameters", "best", "peak_memory_bytes", "wall_s", "time_split")
"""Keys of the result of each stage that the pipeline's result repeats."""
Prepare = Callable[[CliArgs, Path | None], RunPlan]
"""Prepares one run, as `launcher.run.prepare` does."""


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
        return {
            "folder": str(self.folder),
            **summarize(self.folders),
            "reason": "nothing is left to do",
        }

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

        def is_used(key: str, run: Resolved) -> bool:
            return key in run.values and why_ineffective(run.values, key) is None

        def is_shown(key: str, run: Resolved) -> bool:
            return (
                key not in run.values or is_used(key, run) or not any(is_used(key, r) for r in runs)
            )

        return distinct(w for run in runs for w in run.warnings if is_shown(w.key or "", run))


def prepare(
    args: CliArgs,
    out: Path | None,
    diagnostics: Sequence[Diagnostic],
    prepare_one: Prepare = prepare_run,
) -> RunPlan | Pipeline:
    """Resolve one run, or all runs of a pipeline, each by `prepare_one`; start nothing.

    Reads settings files and the JSON of resumed runs. Raises SettingsError with `diagnostics` and
    all other errors.
    """
    if args.resume is not None and (folder := _find(args, out)) is not None:
        return _resumed(folder, args, out, list(diagnostics), prepare_one)
    if args.resume in (None, AUTO) and (stages := selected(args)):
        return _new(stages, args, out, list(diagnostics), prepare_one)
    args, wrong = with_weights(args)
    return collected([*diagnostics, *wrong], partial(prepare_one, args, out))


def runs_of(ready: RunPlan | Pipeline) -> list[tuple[str, str, RunPlan]]:
    """Name and title of each run that is left, and its plan; a single run has no name."""
    if isinstance(ready, RunPlan):
        return [("", "", ready)]
    return [(entry.name, f"{ready.title(entry)}\n\n", plan) for entry, plan in ready.left]


def _new(
    stages: Sequence[Stage],
    args: CliArgs,
    out: Path | None,
    invalid: list[Diagnostic],
    prepare_one: Prepare,
) -> Pipeline:
    args, wrong = with_weights(args, stages[0])
    invalid += wrong
    line = None
    if args.resume is not None:
        line = f"{args.resume_option} {args.resume}: no run of these stages to resume"
        args = replace(args, resume=None)
    sets = [text for text in args.sets if text.partition("=")[0].strip() != STAGES]
    folder = out or run_folder.PARENT / STAGED_MODE
    entries: list[PipelineStage] = []
    for number, stage in enumerate(stages, start=1):
        turn = Setting([stage.name], Origin(CLI_LAYER, f"stage {number} of {len(stages)}"))
        filled = {**({} if entries else args.filled), STAGES: turn, **_weights(stage, entries)}
        made = _prepared(replace(args, sets=sets, filled=filled), invalid, prepare_one)
        if out is None and not entries and made is not None:
            folder = run_folder.unused_path(made.name)
        inner = folder / f"{number}-{stage.name}"
        if made is not None:
            made = replace(made, out=inner, resume=ResumeRequest(inner), separate=True)
        entries.append(PipelineStage(stage.name, stage.sentence, inner, made))
    invalid += run_folder.writing_errors(folder, f"--out {folder}" if out else "no --out was given")
    if invalid:
        raise SettingsError(distinct(invalid))
    return Pipeline(folder, entries, line=line)


def _weights(stage: Stage, entries: Sequence[PipelineStage]) -> dict[str, Setting]:
    """The setting that loads the weights of the latest matching stage before this one."""
    before = [entry for entry in entries if entry.name in stage.of]
    if stage.loads is None or not before:
        return {}
    origin = Origin(CLI_LAYER, f"stage {before[-1].name} of this run")
    return {stage.loads: Setting(str(before[-1].folder), origin)}


def _prepared(args: CliArgs, invalid: list[Diagnostic], prepare_one: Prepare) -> RunPlan | None:
    """One stage; None: it has errors, which are added to `invalid`."""
    try:
        made = prepare_one(args, None)
    except SettingsError as error:
        invalid += error.diagnostics
        return None
    if made.launched is not None:  # ranks of torchrun or srun cannot end between stages
        source = made.launched.source
        message = f"each stage runs in its own processes, but {source} started this one"
        where = f"mode {STAGED_MODE}" if args.resume is None else f"resume {args.resume}"
        allowed = f"one stage at a time under {source}"
        fix = f"{STAGE.flag} NAME  and for later stages  {FROM.flag} RUN  or resume one stage"
        invalid.append(Diagnostic(message, where=where, allowed=allowed, fix=fix))
    return made


def distinct(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Each once: several runs share most settings. Of errors, see `most_certain`."""
    return most_certain({(each.message, each.where): each for each in diagnostics}.values())


def _resumed(
    pipeline: Path, args: CliArgs, out: Path | None, invalid: list[Diagnostic], prepare_one: Prepare
) -> Pipeline:
    folders = RunReader(pipeline).stages()
    useless = {
        each.origin.where.partition(" ")[0]: each.origin.where for each in args.filled.values()
    }
    if args.weights is not None:
        useless[FROM.flag] = f"{FROM.flag} {args.weights}"
    if out is not None and out.resolve() != pipeline.resolve():
        useless["--out"] = f"--out {out}"
    single = f"leave out {{}}  or resume the folder of one stage: {', '.join(map(str, folders.values()))}"
    for option, where in useless.items():
        message = f"{option} has no effect on the resumed stages of {pipeline}"
        invalid.append(Diagnostic(message, key=option, where=where, fix=single.format(option)))
    try:
        family = _settings(folders).get("model.family")
        declared = {stage.name: stage for stage in declared_stages(family)} if family else {}
    except SettingsError:  # such as a custom task that was moved; preparing its run reports that
        declared = {}
    entries: list[PipelineStage] = []
    for name, folder in folders.items():
        stage = declared.get(name, Stage(name, ""))
        made = None
        if not _is_completed(folder):
            is_new = checkpoint_search.newest_step(folder) is None
            content = replace(
                args, resume=str(folder), weights=None, filled=_weights(stage, entries)
            )
            made = _prepared(
                replace(content, reset=()) if is_new else content, invalid, prepare_one
            )
        if made is not None:
            line = made.line if (folder / run_folder.METRICS).exists() else None
            made = replace(made, separate=True, line=line)
        entries.append(PipelineStage(name, stage.sentence, folder, made))
    if invalid:
        raise SettingsError(distinct(invalid))
    left = [entry.name for entry in entries if entry.start is not None]
    line = f"resuming {pipeline}: {', '.join(left)}"
    if not left:
        longer = (
            f"{PROGRAM} resume {shlex.quote(str(entries[-1].folder))} --epochs N --reset schedule"
        )
        line = (
            f"nothing to do: all stages of {pipeline} are completed; to train one longer: {longer}"
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
    names = [stage.name for stage in selected(args)]
    choice = choose(args)
    for folder in checkpoint_search.newest(run_folder.STAGES) if names else ():
        stages = RunReader(folder).stages()
        is_of_model = list(stages) == names and (
            checkpoint_search.model_of(_settings(stages)) == (choice.family, choice.model)
        )
        if is_of_model and not all(map(_is_completed, stages.values())):
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


def with_weights(args: CliArgs, stage: Stage | None = None) -> tuple[CliArgs, list[Diagnostic]]:
    """The arguments with --from as a setting of `stage`, by default of the selected one; its errors.

    Reads settings files, and looks at names.
    """
    if args.weights is None:
        return args, []
    if stage is None:
        choice = choose(args)
        stage = next((s for s in declared_stages(choice.family) if s.name == choice.stage), None)
    option = f"{FROM.flag} {args.weights}"
    rest = replace(args, weights=None)
    allowed = "with a later stage"
    fix = "leave it out"
    if args.resume not in (None, AUTO):
        what = "a resumed run loads weights from its own checkpoint"
        allowed = f"{FROM.flag}  with a new run"
    elif stage is None:
        what = "no stage is selected"
        allowed = "with  --mode staged --stage NAME"
        fix = f"--set model.start={shlex.quote(args.weights)}"
    elif stage.loads is None:
        what = f"stage {stage.name} starts from random weights"
    else:
        value = args.weights
        diagnostics = list[Diagnostic]()
        try:
            value = str(weights_in(args.weights, stage))
        except SettingsError as error:
            diagnostics += error.diagnostics
        filled = {**args.filled, stage.loads: Setting(value, Origin(CLI_LAYER, option))}
        return replace(rest, filled=filled), diagnostics
    return rest, [
        Diagnostic(f"{option}: {what}", FROM.flag, where=option, allowed=allowed, fix=fix)
    ]


def weights_in(word: str, stage: Stage) -> Path:
    """The value of the setting `stage.loads`. Looks at names only. Raises SettingsError.

    Of a run the best checkpoint, or else the last, or else the newest one.
    """
    path = Path(word)
    what = f"'{word}' does not exist"
    if path.is_file():
        return path
    if path.is_dir():
        what = f"'{path}' holds no weights for stage {stage.name}"
        if folders := RunReader(path).stages():
            path = next(
                (f for name, f in reversed(list(folders.items())) if name in stage.of), path
            )
        steps = sorted((path / retention.CHECKPOINTS).glob("step-*"), reverse=True)
        for folder in (path, path / retention.BEST, path / retention.LAST, *steps):
            # A complete checkpoint, or an export; the best one is found by the folder of the run.
            if any((folder / name).is_file() for name in (MODEL, NAME)):
                return path if folder.name == retention.BEST else folder
    allowed = "a run folder, one of its checkpoints, an export or a safetensors file"
    raise SettingsError.of(what, key=FROM.flag, value=word, where=f"--from {word}", allowed=allowed)


def save_stages(folder: Path, stages: Sequence[PipelineStage]) -> None:
    """Write the stages of the pipeline in `folder`. Raises OSError. Touches the disk."""
    content = [{"name": stage.name, "folder": stage.folder.name} for stage in stages]
    run_folder.write_new(folder / run_folder.STAGES, encode({"stages": content}, indent=2) + "\n")


def _is_completed(folder: Path) -> bool:
    """Whether the run of a stage is completed. Reads the disk."""
    return (RunReader(folder).result() or {}).get("status") == "completed"


def save_result(
    folder: Path, stages: Mapping[str, Path], codes: Mapping[str, int]
) -> dict[str, Any]:
    """Write and give the result of the pipeline in `folder`, as `summarize`. Raises StorageError."""
    result = summarize(stages, codes)
    path = folder / run_folder.RESULT
    with storage_errors(path):
        atomic_write(path, encode_bytes(result, indent=2) + b"\n")
    return result


def summarize(
    folders: Mapping[str, Path], codes: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """The result of a pipeline, from those in the `folders` of its stages. Reads the disk.

    `codes` holds the exit codes of this start.
    """
    stages = []
    results = []
    for name, folder in folders.items():
        result = RunReader(folder).result() or {}
        code = (codes or {}).get(name)
        status = (
            _STATUSES.get(code, "stopped") if code is not None else result.get("status", "waiting")
        )
        if status == "completed":
            code = exit_codes.DONE
        facts = {key: result.get(key) for key in _KEPT}
        stages.append(
            {"name": name, "folder": folder.name, **facts, "status": status, "exit_code": code}
        )
        results += [result] if result else []
    last: Mapping[str, Any] = results[-1] if results else {}
    peaks = _known(results, "peak_memory_bytes")
    kinds = list(dict.fromkeys(kind for peak in peaks for kind in peak))
    statuses = {stage["status"] for stage in stages}
    status = "failed" if "failed" in statuses else "stopped"
    return {
        "status": "completed" if statuses == {"completed"} else status,
        **{key: sum(_known(results, key)) for key in ("steps", "epochs", "wall_s")},
        **{key: last.get(key) for key in ("model", "mode", "engine", "world_size")},
        "parameters": max(_known(results, "parameters"), default=None),
        "best": last.get("best"),
        # The largest peak of each kind of memory over stages; None: not measured.
        "peak_memory_bytes": {kind: max(_known(peaks, kind), default=None) for kind in kinds},
        "samples_per_s": last.get("samples_per_s"),
        "stages": stages,
    }


def _known(results: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [result[key] for result in results if result.get(key) is not None]
