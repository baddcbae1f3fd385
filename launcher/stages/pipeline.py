"""A pipeline of stages: resolved as a whole before the first one starts, and its files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, collecting
from gearshift.launcher.config.provenance import CLI_LAYER, STAGED_MODE, CliArgs, Origin, Setting
from gearshift.launcher.config.selection import STAGES, choose, declared_stages, select_stages
from gearshift.launcher.config.settings_file import read_values
from gearshift.launcher.run.prepare import prepare_run
from gearshift.launcher.run_folder import checkpoint_search, run_folder
from gearshift.launcher.run_folder.checkpoint_search import AUTO
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.run_folder.run_plan import Pipeline, PipelineStage, ResumeRequest, RunPlan
from gearshift.models.catalog import Stage
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.logging.encoding import encode, encode_bytes
from gearshift.training.storage import write_file

_STATUSES = {
    exit_codes.DONE: "completed",
    exit_codes.FAILURE: "failed",
    exit_codes.INVALID_INPUT: "failed",
}
_KEPT = ("status", "steps", "parameters", "best", "peak_memory_bytes", "wall_s", "time_split")
"""Keys of the result of each stage that the pipeline's result repeats."""
_OF_LAST = ("model", "mode", "engine", "world_size", "best", "samples_per_s")
"""Keys that it has from the last stage."""
Prepare = Callable[[CliArgs, Path | None], RunPlan]
"""Prepares one run, as `launcher.run.prepare` does."""


def prepare(
    args: CliArgs,
    out: Path | None,
    diagnostics: Sequence[Diagnostic],
    prepare_one: Prepare = prepare_run,
) -> Pipeline:
    """Resolve one run, or all runs of a pipeline, each by `prepare_one`; start nothing.

    Reads settings files and the JSON of resumed runs. Raises SettingsError with `diagnostics` and
    all other errors.
    """
    preparation = _Preparation(args, out, list(diagnostics), prepare_one)
    if args.resume is not None:
        folder = _find(args, out)
        if folder:
            return preparation.resumed(folder)
    if args.resume in (None, AUTO):
        stages = selected(args)
        if stages:
            return preparation.new(stages)
    args, wrong = with_weights(args)
    with collecting([*diagnostics, *wrong]):
        plan = prepare_one(args, out)
    return Pipeline.of(plan)


def runs_of(ready: Pipeline) -> list[tuple[str, str, RunPlan]]:
    """Name and title of each run that is left, and its plan; a single run has no name."""
    if not ready.is_staged:
        return [("", "", ready.plan)]
    return [(entry.name, f"{ready.title(entry)}\n\n", plan) for entry, plan in ready.left]


@dataclass(frozen=True)
class _Preparation:
    """The stages of a command line, prepared as a whole: their errors come together."""

    args: CliArgs
    out: Path | None
    invalid: list[Diagnostic]
    prepare_one: Prepare

    def new(self, stages: Sequence[Stage]) -> Pipeline:
        """The runs of `stages` in a new folder. Raises SettingsError."""
        args, wrong = with_weights(self.args, stages[0])
        self.invalid.extend(wrong)
        line = None
        if args.resume is not None:
            line = f"{args.resume_option} {args.resume}: no run of these stages to resume"
            args = replace(args, resume=None)
        # Each run gets its own stage: the list of all is for this function only.
        sets = [text for text in args.sets if text.partition("=")[0].strip() != STAGES]
        folder = self.out or run_folder.PARENT / STAGED_MODE
        entries: list[PipelineStage] = []
        for number, stage in enumerate(stages, start=1):
            turn = Setting([stage.name], Origin(CLI_LAYER, f"stage {number} of {len(stages)}"))
            filled = {STAGES: turn, **_weights(stage, entries)}
            if not entries:  # --from is for the first one
                filled = {**args.filled, **filled}
            plan = self._prepared(replace(args, sets=sets, filled=filled))
            if not self.out and not entries and plan:
                folder = run_folder.unused_path(plan.name)
            inner = folder / f"{number}-{stage.name}"
            if plan:
                # All folders are made before the first stage starts: each resumes in its own.
                plan = replace(plan, out=inner, resume=ResumeRequest(inner), separate=True)
            entries.append(PipelineStage(stage.name, stage.sentence, inner, plan))
        where = f"--out {folder}" if self.out else "no --out was given"
        self.invalid.extend(run_folder.writing_errors(folder, where))
        if self.invalid:
            raise SettingsError(distinct(self.invalid))
        return Pipeline(folder, entries, line=line)

    def resumed(self, pipeline: Path) -> Pipeline:
        """The runs of the folder `pipeline`, without the completed ones. Raises SettingsError."""
        folders = RunReader(pipeline).stages()
        self._refuse_useless(pipeline, folders)
        declared: dict[str, Stage] = {}
        family = _settings(folders).get("model.family")
        if family:
            # Such as a custom task that was moved; preparing its run reports it.
            with suppress(SettingsError):
                declared = {stage.name: stage for stage in declared_stages(family)}
        entries: list[PipelineStage] = []
        left = [name for name, folder in folders.items() if not _is_completed(folder)]
        for name, folder in folders.items():
            stage = declared.get(name, Stage(name, ""))
            plan = None
            if name in left:
                plan = self._resumed_stage(folder, _weights(stage, entries))
            entries.append(PipelineStage(name, stage.sentence, folder, plan))
        if self.invalid:
            raise SettingsError(distinct(self.invalid))
        if left:
            return Pipeline(pipeline, entries, True, f"resuming {pipeline}: {', '.join(left)}")
        line = f"nothing to do: all stages of {pipeline} are completed; a single one can be resumed"
        result = {"folder": str(pipeline), **summarize(folders), "reason": "nothing is left to do"}
        return Pipeline(pipeline, entries, True, line, result)

    def _refuse_useless(self, pipeline: Path, folders: Mapping[str, Path]) -> None:
        """Errors of arguments that do nothing on the resumed stages in `folders`."""
        useless = [setting.origin.where for setting in self.args.filled.values()]
        if self.args.weights:
            useless.append(f"--from {self.args.weights}")
        if self.out and self.out.resolve() != pipeline.resolve():
            useless.append(f"--out {self.out}")
        if useless:
            options = [where.partition(" ")[0] for where in useless]
            stages = ", ".join(map(str, folders.values()))
            self.invalid.append(
                Diagnostic(
                    f"no effect on the resumed stages of {pipeline}: {', '.join(options)}",
                    where="; ".join(useless),
                    fix="",
                    replaces=tuple(options),
                    hint=f"resume the folder of one stage: {stages}",
                )
            )

    def _resumed_stage(self, folder: Path, weights: dict[str, Setting]) -> RunPlan | None:
        args = replace(self.args, resume=str(folder), weights=None, filled=weights)
        # A stage that saved nothing yet has nothing to reset.
        if checkpoint_search.newest_step(folder) is None:
            args = replace(args, reset=())
        plan = self._prepared(args)
        if not plan:
            return None
        # A stage that never trained is not resumed in the eyes of the user.
        if not (folder / run_folder.METRICS).exists():
            plan = replace(plan, line=None)
        return replace(plan, separate=True)

    def _prepared(self, args: CliArgs) -> RunPlan | None:
        """One stage; None: it has errors, which are added to `invalid`."""
        try:
            plan = self.prepare_one(args, None)
        except SettingsError as error:
            self.invalid.extend(error.diagnostics)
            return None
        if plan.launched:  # ranks of torchrun or srun cannot end between stages
            source = plan.launched.source
            where = f"mode {STAGED_MODE}" if args.resume is None else f"resume {args.resume}"
            self.invalid.append(
                Diagnostic(
                    f"each stage runs in its own processes, but {source} started this one",
                    where=where,
                    allowed=f"one stage at a time under {source}",
                    hint="--stage NAME  and for later stages  --from RUN  or resume one stage",
                )
            )
        return plan


def _weights(stage: Stage, entries: Sequence[PipelineStage]) -> dict[str, Setting]:
    """The setting that loads the weights of the latest matching stage before this one."""
    for entry in reversed(entries):
        if stage.loads and entry.name in stage.of:
            origin = Origin(CLI_LAYER, f"stage {entry.name} of this run")
            return {stage.loads: Setting(str(entry.folder), origin)}
    return {}


def distinct(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Each once: several runs share most settings."""
    return list({(each.message, each.where): each for each in diagnostics}.values())


def _find(args: CliArgs, out: Path | None) -> Path | None:
    """The folder of the pipeline to resume; None: there is none, or a single run is resumed.

    With `auto` that in `out`, or the newest of the same model and stages below runs/ that was not
    completed. Reads the disk.
    """
    folder = out
    if args.resume != AUTO:
        folder = Path(args.resume or "")
    if folder:
        return folder if RunReader(folder).stages() else None
    names = [stage.name for stage in selected(args)]
    choice = choose(args)
    for folder in checkpoint_search.newest(run_folder.STAGES):
        stages = RunReader(folder).stages()
        if not names or list(stages) != names:
            continue
        model = checkpoint_search.model_of(_settings(stages))
        is_completed = all(map(_is_completed, stages.values()))
        if model == (choice.family, choice.model) and not is_completed:
            return folder
    return None


def _settings(folders: Mapping[str, Path]) -> Facts:
    """The settings of the first stage; none: they cannot be read, which preparing it reports."""
    with suppress(SettingsError):
        return read_values(next(iter(folders.values())) / run_folder.SETTINGS)
    return {}


def selected(args: CliArgs) -> tuple[Stage, ...]:
    """The stages to train one after the other; empty: a single run.

    Invalid stages give none here; resolving the settings reports them. Reads settings files.
    """
    choice = choose(args)
    if choice.mode != STAGED_MODE or choice.diagnostics:
        return ()
    stages = select_stages(choice.stages, declared_stages(choice.family))
    if choice.stages and [stage.name for stage in stages] != list(choice.stages):
        return ()
    return stages if len(stages) > 1 else ()


def with_weights(args: CliArgs, stage: Stage | None = None) -> tuple[CliArgs, list[Diagnostic]]:
    """The arguments with --from as a setting of `stage`, by default the selected one; its errors.

    Reads settings files, and looks at names.
    """
    if args.weights is None:
        return args, []
    if not stage:
        choice = choose(args)
        named = (each for each in declared_stages(choice.family) if each.name == choice.stage)
        stage = next(named, None)
    option = f"--from {args.weights}"
    is_resumed = args.resume not in (None, AUTO)
    if stage and stage.loads and not is_resumed:
        wrong: list[Diagnostic] = []
        value = args.weights
        try:
            value = str(weights_in(args.weights, stage))
        except SettingsError as error:
            wrong = error.diagnostics
        filled = {**args.filled, stage.loads: Setting(value, Origin(CLI_LAYER, option))}
        return replace(args, weights=None, filled=filled), wrong

    problem = "no stage is selected"
    fix = ""
    if is_resumed:
        problem = "a resumed run loads weights from its own checkpoint"
    elif stage:
        problem = f"stage {stage.name} starts from random weights"
    else:
        run = shlex.quote(args.weights)
        # The model of the run, unless another one is named.
        fix = f"--model {run}" if args.model is None else f"--set model.start={run}"
    refusal = Diagnostic(
        f"{option}: {problem}",
        "--from",
        where=option,
        allowed="with a later stage of a new run:  --stage NAME",
        fix=fix,
        replaces=("--from",),
    )
    return replace(args, weights=None), [refusal]


def weights_in(word: str, stage: Stage) -> Path:
    """The value of the setting `stage.loads`; of a pipeline its latest matching stage.

    Looks at names only: the run finds the best weights there. Raises SettingsError.
    """
    path = Path(word)
    if not path.exists():
        raise SettingsError.of(
            f"'{word}' does not exist",
            key="--from",
            value=word,
            where=f"--from {word}",
            allowed="a run folder, one of its checkpoints, an export or a safetensors file",
        )
    if path.is_dir():
        for name, folder in RunReader(path).stages().items():
            if name in stage.of:
                path = folder
    return path


def save_stages(folder: Path, stages: Sequence[PipelineStage]) -> None:
    """Write the stages of the pipeline in `folder`. Raises OSError. Touches the disk."""
    content = [{"name": stage.name, "folder": stage.folder.name} for stage in stages]
    run_folder.write_new(folder / run_folder.STAGES, encode({"stages": content}, indent=2) + "\n")


def _is_completed(folder: Path) -> bool:
    """Whether the run of a stage is completed. Reads the disk."""
    return (RunReader(folder).result() or {}).get("status") == "completed"


def save_result(folder: Path, stages: Mapping[str, Path], codes: Mapping[str, int]) -> Json:
    """Write and give the result of the pipeline in `folder`; see `summarize`.

    Raises StorageError.
    """
    result = summarize(stages, codes)
    path = folder / run_folder.RESULT
    write_file(path, encode_bytes(result, indent=2) + b"\n")
    return result


def summarize(folders: Mapping[str, Path], codes: Mapping[str, int] | None = None) -> Json:
    """The result of a pipeline, from those in the `folders` of its stages. Reads the disk.

    `codes` holds the exit codes of this start.
    """
    stages = []
    results = [RunReader(folder).result() or {} for folder in folders.values()]
    for (name, folder), result in zip(folders.items(), results, strict=True):
        # The exit code of this start decides: result.json may be that of an earlier one.
        code = (codes or {}).get(name)
        status = result.get("status", "waiting")
        if code is not None:
            status = _STATUSES.get(code, "stopped")
        if status == "completed":
            code = exit_codes.DONE
        facts = {key: result.get(key) for key in _KEPT}
        stages.append(
            {"name": name, "folder": folder.name, **facts, "status": status, "exit_code": code}
        )
    statuses = {stage["status"] for stage in stages}
    status = "failed" if "failed" in statuses else "stopped"
    if statuses == {"completed"}:
        status = "completed"
    # The largest peak of each kind of memory over stages; None: not measured.
    peaks = _known(results, "peak_memory_bytes")
    last: Facts = next(filter(None, reversed(results)), {})
    return {
        "status": status,
        **{key: sum(_known(results, key)) for key in ("steps", "epochs", "wall_s")},
        **{key: last.get(key) for key in _OF_LAST},
        "parameters": max(_known(results, "parameters"), default=None),
        "peak_memory_bytes": {
            kind: max(_known(peaks, kind), default=None) for kind in chain.from_iterable(peaks)
        },
        "stages": stages,
    }


def _known(results: Sequence[Facts], key: str) -> list[Any]:
    return [result[key] for result in results if result.get(key) is not None]
