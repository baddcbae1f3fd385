"""The candidates of a comparison: each mode under each engine, checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

from launcher.base import disk, environment
from launcher.base.diagnostics import Diagnostic, SettingsError, counted, render
from launcher.compare import study as studies
from launcher.compare.promises import is_of_gpu
from launcher.compare.study import ArrayTask, ComparisonRound, Study
from launcher.config import presets
from launcher.config.command_line import CommandLine
from launcher.config.provenance import USER_LAYERS, CliArgs, Resolved
from launcher.config.schema import AUTO, model_name
from launcher.run.prepare import least_room_bytes
from launcher.run_folder import run_folder
from launcher.run_folder.reader import RunReader
from launcher.stages import pipeline
from launcher.stages.pipeline import Pipeline
from training.evaluation.early_stopping import Target, parse_target
from training.settings import TARGET_FORMS

_MOST = 10**6
_COUNT = f"a whole number, 1 to {_MOST:,}"
_FOLDS = f"a whole number, at least 2; or {studies.BY_GROUP}: each group is a fold"
RUNS, JSON_FILE, PAGE = "runs", "compare.json", "compare.html"
BASELINE = "default"
"""The mode that promises refer to; always compared."""


@dataclass(frozen=True)
class ComparisonLimits:
    """How far each run goes; all None: to its end."""

    steps: int | None = None
    epochs: float | None = None
    until: Target | None = None

    @property
    def is_cut(self) -> bool:
        """Whether runs may end before their training plan, to save time."""
        return self.steps is not None or self.epochs is not None

    @property
    def sets(self) -> list[str]:
        """The limits as values of --set."""
        if self.steps is not None:
            return [f"stop.after={self.steps}"]
        if self.epochs is not None:
            return [f"stop.after={self.epochs:g} epochs"]
        return [] if self.until is None else [f"stop.at={self.until.text()}"]


@dataclass(frozen=True)
class ModeCandidate:
    """One mode under one engine: a run that is ready to start."""

    mode: str
    engine: str
    args: CliArgs
    resolved: Resolved
    """The resolved settings; of staged training those of the last stage."""
    stages: Mapping[str, Resolved] = field(default_factory=dict)
    """The resolved settings of each stage; empty: one run."""
    warnings: Sequence[Diagnostic] = ()

    @property
    def promises(self) -> dict[str, Any]:
        """The promises of the mode; of staged training those that all stages share."""
        return _shared(self.resolved.promises, [run.promises for run in self.stages.values()])

    @property
    def unpromised(self) -> dict[str, str]:
        """Why promises are outside of their scope, as `promises`."""
        return _shared(self.resolved.unpromised, [run.unpromised for run in self.stages.values()])

    def promises_of(self, stage: str) -> dict[str, Any]:
        """The promises of one stage alone."""
        shared = self.promises
        return {k: v for k, v in self.stages[stage].promises.items() if k not in shared}

    def unpromised_of(self, stage: str) -> dict[str, str]:
        """Why promises of one stage alone are outside of their scope."""
        shared = self.unpromised
        return {k: v for k, v in self.stages[stage].unpromised.items() if k not in shared}

    @property
    def is_open(self) -> bool:
        """Whether it has promises of a GPU, and its run has none."""
        runs = [self.resolved, *self.stages.values()]
        promised = [pair for run in runs for pair in run.promises.items()]
        return self.resolved.device == "cpu" and any(is_of_gpu(*pair) for pair in promised)

    @property
    def name(self) -> str:
        """Mode and engine."""
        return f"{self.mode} {self.engine}"


@dataclass(frozen=True)
class PlannedComparison:
    """A comparison that is ready to start."""

    candidates: Sequence[ModeCandidate]
    limits: ComparisonLimits
    repeats: int
    folder: Path
    warnings: Sequence[Diagnostic]
    study: Study | None = None
    """None: the runs of a candidate are repeats of one."""
    task: ArrayTask | None = None
    """The Slurm task that runs a share of the study; None: all of it is run here."""

    @property
    def rounds(self) -> list[ComparisonRound]:
        """The rounds of the whole comparison."""
        if self.study is not None:
            return self.study.rounds
        return [ComparisonRound(str(number)) for number in range(1, self.repeats + 1)]

    @property
    def own_rounds(self) -> Sequence[ComparisonRound]:
        """The rounds that this process runs."""
        return self.rounds if self.task is None else self.task.share(self.rounds)

    @property
    def turns(self) -> Iterator[tuple[int, ComparisonRound]]:
        """The runs of this process in their order: the number of the candidate, and the round."""
        count = len(self.candidates)
        for start, entry in enumerate(self.own_rounds):
            # Each round starts with another candidate, so that warm-up and drift affect each.
            yield from (((position + start) % count, entry) for position in range(count))

    @property
    def sentence(self) -> str:
        """`6 runs`; of a study, `20 runs: 2 candidates × 5 folds × 2 seeds`."""
        count = len(self.candidates)
        runs = counted(count * len(self.rounds), "run")
        if self.study is None:
            return runs
        return f"{runs}: {counted(count, 'candidate')} × {self.study.title}"

    def run_folder(self, number: int, entry: ComparisonRound) -> Path:
        """The run folder of a candidate in a round."""
        item = self.candidates[number]
        return self.folder / RUNS / f"{item.mode}-{item.engine}-{entry.name}"


def decide(command_line: CommandLine) -> PlannedComparison:
    """Resolve every candidate without starting a run. Raises SettingsError with all errors.

    Reads the data if there are folds, and what an earlier start of a study has finished.
    """
    diagnostics = list(command_line.diagnostics)
    limits = _limits(command_line.values, diagnostics)
    repeats = int(_number(command_line.values, "--repeat", _COUNT, diagnostics) or 1)
    study = _study(command_line, limits, diagnostics)
    args = command_line.args if study is None else command_line.args.with_sets(study.rounds[0].sets)
    modes = _names(command_line.values, "--modes")
    engines = _names(command_line.values, "--engines")
    if not modes and not engines:
        message, where = "compare needs --modes or --engines", "the command line: compare"
        allowed, fix = "names separated by commas", "--modes default,fast"
        diagnostics.append(Diagnostic(message, where=where, allowed=allowed, fix=fix))
    pairs = [
        (mode, engine)
        for mode in dict.fromkeys((BASELINE, *modes))
        for engine in dict.fromkeys(engines) or [command_line.args.engine]
    ]
    known = [render([diagnostic]) for diagnostic in diagnostics]
    warnings: list[Diagnostic] = []
    ready: list[ModeCandidate] = []
    for mode, engine in pairs:
        if engine is None and ready and ready[0].resolved.chosen is not None:
            engine = ready[0].engine  # engine auto may choose another one for each mode
        try:
            ready.append(_candidate(args, mode, engine, limits))
        except SettingsError as error:
            diagnostics += _unseen(error.diagnostics, known)
        else:
            warnings += _unseen(ready[-1].warnings, known)
    continues = study is not None and _is_study(command_line.out)
    resolved = ready[0].resolved if ready else None
    folder = _folder(command_line, resolved, [] if continues else diagnostics)
    if study is not None and not diagnostics:
        diagnostics += _folds_of_modes(study, ready)
    if diagnostics:
        raise SettingsError(diagnostics)
    needed = max(least_room_bytes(candidate.resolved) for candidate in ready)
    where = f"--out {folder}" if command_line.out else "no --out was given"
    disk.check_writable(folder, where, needed_bytes=needed)
    task = None if study is None else _array_task(command_line)
    comparison = PlannedComparison(ready, limits, repeats, folder, warnings, study, task)
    if continues:
        _check_finished(comparison)
    return comparison


def _study(
    command_line: CommandLine, limits: ComparisonLimits, diagnostics: list[Diagnostic]
) -> Study | None:
    """The study of --folds and --seeds; None: neither is given, or there is an error."""
    values = command_line.values
    given = [flag for flag in ("--folds", "--seeds") if flag in values]
    before = len(diagnostics)
    folds: str | int | None = values.get("--folds")
    if isinstance(folds, str) and folds != studies.BY_GROUP:
        number = int(folds) if folds.isdecimal() else 0
        if number < 2:
            diagnostics.append(_wrong("--folds", folds, _FOLDS, "5"))
        folds = number
    seeds = _number(values, "--seeds", _COUNT, diagnostics)
    if given and "--repeat" in values:
        what = f"--repeat and {' and '.join(given)} exclude each other: a repeat is the same run "
        what += "again, and a study varies its fold or its seed"
        where = f"the command line: --repeat {values['--repeat']}"
        diagnostics.append(Diagnostic(what, where=where, fix="leave out --repeat"))
    if not given or len(diagnostics) > before:
        return None
    engine = next(iter(_names(values, "--engines")), command_line.args.engine)
    try:
        resolved = _candidate(command_line.args, BASELINE, engine, limits).resolved
        return studies.plan(folds, None if seeds is None else int(seeds), resolved)
    except SettingsError as error:
        diagnostics += error.diagnostics
        return None


def _folds_of_modes(study: Study, ready: Sequence[ModeCandidate]) -> list[Diagnostic]:
    """Errors of modes that have too few groups, as they use a part of the data. Reads the data."""
    diagnostics: list[Diagnostic] = []
    first = ready[0].resolved.settings.data
    for candidate in ready[1:] if study.folds else ():
        if candidate.resolved.settings.data != first:
            try:
                studies.check_folds(study, candidate.name, candidate.resolved)
            except SettingsError as error:
                diagnostics += error.diagnostics
    return diagnostics


def _array_task(command_line: CommandLine) -> ArrayTask | None:
    task = studies.array_task(environment.variables())
    if task is not None and command_line.out is None:
        message = "the tasks of a Slurm array need one folder for their runs"
        raise SettingsError.of(message, where="no --out was given", fix="--out runs/study")
    return task


def _is_study(folder: Path | None) -> bool:
    """Whether `folder` has only what a study leaves there. Reads the disk."""
    if folder is None or not (folder / RUNS).is_dir():
        return False
    if {path.name for path in folder.iterdir()} - {RUNS, JSON_FILE, PAGE}:
        return False
    path = folder / JSON_FILE
    content = RunReader(path.parent).object(path.name) or {"folds": 1}
    return bool(content.get("folds") or content.get("seeds"))


def _check_finished(comparison: PlannedComparison) -> None:
    """Compare the settings of finished runs with those of now. Raises SettingsError."""
    for entry, (number, candidate) in product(comparison.rounds, enumerate(comparison.candidates)):
        folder = comparison.run_folder(number, entry)
        if not studies.is_finished(folder):
            if entry in comparison.own_rounds:
                studies.check_idle(folder)
            continue
        stages = candidate.stages or {"": candidate.resolved}
        changes: list[Diagnostic] = []
        for part, resolved in zip(studies.parts(folder), stages.values(), strict=False):
            changes += studies.differences(part, resolved, entry.sets)
        if changes:
            raise SettingsError(changes)


def _candidate(
    args: CliArgs, mode: str, engine: str | None, limits: ComparisonLimits
) -> ModeCandidate:
    """One mode under one engine. Raises SettingsError where that run is invalid."""
    sets = [*args.sets, *limits.sets]
    arguments = replace(args, mode=mode, mode_option="--mode", engine=engine, sets=sets)
    ready = pipeline.prepare(arguments, None, [])
    stages = {}
    if isinstance(ready, Pipeline):
        stages = {link.name: begun.resolved for link, begun in ready.left}
        warnings, resolved = ready.warnings, list(stages.values())[-1]
    elif ready.launched is not None:
        what = f"compare starts its own processes, but {ready.launched.source} started this one"
        raise SettingsError.of(what, where="the environment", allowed="a plain shell")
    else:
        warnings, resolved = list(ready.resolved.warnings), ready.resolved
    lines = 1
    if resolved.device != "cpu":  # a GPU waits for each logged line
        lines = 10 if limits.steps is None else max(1, min(10, limits.steps // 5))
    for key, value in (("log.every", lines), ("train.preview", "false")):
        if resolved.values[key].origin.layer not in USER_LAYERS:
            sets.append(f"{key}={value}")
    name = resolved.settings.engine.name
    is_auto = engine == AUTO or resolved.chosen is not None
    content = replace(arguments, sets=sets, engine=name if is_auto else engine)
    label = mode
    if arguments.mode_file is not None and arguments.mode_file.stem not in presets.modes():
        label = arguments.mode_file.stem
    return ModeCandidate(label.replace("/", "-"), name, content, resolved, stages, warnings)


def _shared(last: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {k: v for k, v in last.items() if all(item.get(k) == v for item in others)}


def _unseen(diagnostics: Sequence[Diagnostic], known: list[str]) -> list[Diagnostic]:
    """The diagnostics that no earlier candidate had; adds them to `known`."""
    unseen = []
    for diagnostic in diagnostics:
        if (text := render([diagnostic])) not in known:
            known.append(text)
            unseen.append(diagnostic)
    return unseen


def _names(values: Mapping[str, str], flag: str) -> list[str]:
    return [name for part in values.get(flag, "").split(",") if (name := part.strip())]


def _limits(values: Mapping[str, str], diagnostics: list[Diagnostic]) -> ComparisonLimits:
    given = [flag for flag in ("--steps", "--epochs", "--until") if flag in values]
    if len(given) > 1:
        what = f"{' and '.join(given)} exclude each other: each limits how far the runs go"
        position = f"the command line: {' '.join(given)}"
        allowed = "one of --steps, --epochs and --until"
        diagnostics.append(Diagnostic(what, where=position, allowed=allowed))
    until = None
    if (text := values.get("--until")) is not None:
        try:
            until = parse_target(text)
        except ValueError:
            diagnostics.append(_wrong("--until", text, TARGET_FORMS, "val_loss=1.9"))
    steps = _number(values, "--steps", _COUNT, diagnostics)
    epochs = _number(values, "--epochs", "a number above 0", diagnostics)
    return ComparisonLimits(None if steps is None else int(steps), epochs, until)


def _number(
    values: Mapping[str, str], flag: str, allowed: str, diagnostics: list[Diagnostic]
) -> float | None:
    """The number of an option; None: it is not given, or invalid."""
    if (text := values.get(flag)) is None:
        return None
    is_count = "whole" in allowed
    with suppress(ValueError):
        number = int(text) if is_count else float(text)
        if 0 < number < (_MOST + 1 if is_count else float("inf")):
            return number
    diagnostics.append(_wrong(flag, text, allowed, "3" if is_count else "1"))
    return None


def _wrong(flag: str, text: str, allowed: str, example: str) -> Diagnostic:
    return Diagnostic(
        f"{flag} '{text}' is invalid",
        value=text,
        where=f"the command line: {flag} {text}",
        allowed=allowed,
        fix=f"{flag} {example}",
    )


def _folder(
    command_line: CommandLine, resolved: Resolved | None, diagnostics: list[Diagnostic]
) -> Path:
    """The folder of the comparison: new or empty."""
    if command_line.out is None:
        model = "model" if resolved is None else model_name(resolved.settings.model)
        now = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = run_folder.unused_path(f"compare-{model.replace(':', '-')}-{now}")
        diagnostics += run_folder.writing_errors(folder, "no --out was given")
        return folder
    diagnostics += run_folder.writing_errors(command_line.out, f"--out {command_line.out}")
    return command_line.out
