"""The candidates of a comparison: each mode under each engine, checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

from launcher.base import disk
from launcher.base.diagnostics import Diagnostic, SettingsError, render
from launcher.compare import study as studies
from launcher.compare.promises import BYTES, GPU_MEMORY
from launcher.compare.study import ComparisonRound, Study
from launcher.config import presets
from launcher.config.command_line import CommandLine
from launcher.config.provenance import USER_LAYERS, CliArgs, Resolved
from launcher.config.schema import AUTO, model_name
from launcher.run.prepare import least_room_bytes
from launcher.run_folder import run_folder
from launcher.stages import pipeline
from launcher.stages.pipeline import Pipeline
from training.evaluation.early_stopping import Target, parse_target
from training.settings import TARGET_FORMS

_MOST = 10**6
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

    def promised(self, stage: str | None = None) -> tuple[dict[str, Any], dict[str, str]]:
        """The promises of the mode, and why others are outside of their scope.

        Of staged training those that all stages share; of a `stage` those that it has alone.
        """
        pairs = [(run.promises, run.unpromised) for run in (*self.stages.values(), self.resolved)]
        shared: list[dict[str, Any]] = []
        for first, *others in zip(*pairs, strict=True):
            shared.append({k: v for k, v in first.items() if all(o.get(k) == v for o in others)})
        if stage is None:
            return shared[0], shared[1]
        run = self.stages[stage]
        promises = {k: v for k, v in run.promises.items() if k not in shared[0]}
        return promises, {k: v for k, v in run.unpromised.items() if k not in shared[1]}

    @property
    def is_open(self) -> bool:
        """Whether it promises memory of a GPU, and its run has none."""
        measures = {name for run in (self.resolved, *self.stages.values()) for name in run.promises}
        return self.resolved.device == "cpu" and bool(measures & {GPU_MEMORY, GPU_MEMORY + BYTES})

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

    @property
    def rounds(self) -> Sequence[ComparisonRound]:
        """One run of each candidate after the other."""
        if self.study is not None:
            return self.study.rounds
        return [ComparisonRound(str(number)) for number in range(1, self.repeats + 1)]

    @property
    def turns(self) -> Iterator[tuple[int, ComparisonRound]]:
        """The runs in their order: the number of the candidate, and the round."""
        count = len(self.candidates)
        for start, entry in enumerate(self.rounds):
            # Each round starts with another candidate, so that warm-up and drift affect each.
            yield from (((position + start) % count, entry) for position in range(count))

    def run_folder(self, number: int, entry: ComparisonRound) -> Path:
        """The run folder of a candidate in a round."""
        item = self.candidates[number]
        return self.folder / RUNS / f"{item.mode}-{item.engine}-{entry.name}"


def decide(command_line: CommandLine) -> PlannedComparison:
    """Resolve every candidate without starting a run. Raises SettingsError with all errors.

    Reads the data if there are folds.
    """
    values, out, args = command_line.values, command_line.out, command_line.args
    diagnostics = list(command_line.diagnostics)
    option = partial(_parsed, values, diagnostics)
    limits = ComparisonLimits(
        option("--steps", _whole),
        option("--epochs", _epochs, "a number above 0", "1"),
        option("--until", parse_target, TARGET_FORMS, "val_loss=1.9"),
    )
    repeats, folds = option("--repeat", _whole) or 1, option("--folds", _folds_of, _FOLDS)
    seeds = option("--seeds", _whole)
    diagnostics += _exclude(values, "--steps", "--epochs", "--until")
    for flag in ("--folds", "--seeds"):
        diagnostics += _exclude(values, "--repeat", flag)
    modes, engines = (
        [name for part in values.get(flag, "").split(",") if (name := part.strip())]
        for flag in ("--modes", "--engines")
    )
    first_engine = engines[0] if engines else args.engine
    study = None
    if (folds or seeds) and not diagnostics:
        try:
            study = studies.plan(folds, seeds, _candidate(args, BASELINE, first_engine, limits).resolved)
            args = args.with_sets(study.rounds[0].sets)
        except SettingsError as error:
            diagnostics += error.diagnostics
    if not modes and not engines:
        message, where = "compare needs --modes or --engines", "the command line: compare"
        allowed, fix = "names separated by commas", "--modes default,fast"
        diagnostics.append(Diagnostic(message, where=where, allowed=allowed, fix=fix))
    # Those of several candidates once.
    errors = {render([diagnostic]): diagnostic for diagnostic in diagnostics}
    warnings: dict[str, Diagnostic] = {}
    ready: list[ModeCandidate] = []
    for mode, name in product(dict.fromkeys((BASELINE, *modes)), dict.fromkeys(engines) or [None]):
        engine = name or args.engine
        if engine is None and ready and ready[0].resolved.chosen is not None:
            engine = ready[0].engine  # engine auto may choose another one for each mode
        try:
            item = _candidate(args, mode, engine, limits)
        except SettingsError as error:
            errors |= {render([d]): d for d in error.diagnostics if render([d]) not in warnings}
            continue
        ready.append(item)
        warnings |= {render([d]): d for d in item.warnings}
    where = "no --out was given" if out is None else f"--out {out}"
    model = model_name(ready[0].resolved.settings.model) if ready else "model"
    name = f"compare-{model.replace(':', '-')}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = run_folder.unused_path(name) if out is None else out
    errors |= {render([d]): d for d in run_folder.writing_errors(folder, where)}
    if study is not None and study.folds and not errors:
        data = ready[0].resolved.settings.data
        others = [item for item in ready[1:] if item.resolved.settings.data != data]
        wrong = [studies.folds_error(study, item.name, item.resolved) for item in others]
        errors |= {render([d]): d for d in wrong if d is not None}
    if errors:
        raise SettingsError(list(errors.values()))
    needed = max(least_room_bytes(item.resolved) for item in ready)
    disk.check_writable(folder, where, needed_bytes=needed)
    return PlannedComparison(ready, limits, repeats, folder, list(warnings.values()), study)


def _candidate(args: CliArgs, mode: str, engine: str | None, limits: ComparisonLimits) -> ModeCandidate:
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


def _exclude(values: Mapping[str, str], *flags: str) -> Iterator[Diagnostic]:
    """The error where more than one of `flags` is given."""
    given = [flag for flag in flags if flag in values]
    if len(given) > 1:
        where, fix = f"the command line: {' '.join(given)}", f"leave out {given[0]}"
        yield Diagnostic(f"{' and '.join(given)} exclude each other", where=where, fix=fix)


def _parsed(
    values: Mapping[str, str],
    diagnostics: list[Diagnostic],
    flag: str,
    parse: Callable[[str], Any],
    allowed: str = f"a whole number, 1 to {_MOST:,}",
    example: str = "3",
) -> Any:
    """The value of an option; None: it is not given, or invalid."""
    if (text := values.get(flag)) is None:
        return None
    try:
        return parse(text)
    except ValueError:
        where, fix = f"the command line: {flag} {text}", f"{flag} {example}"
        message = f"{flag} '{text}' is invalid"
        diagnostics.append(Diagnostic(message, value=text, where=where, allowed=allowed, fix=fix))
        return None


def _whole(text: str, least: int = 1) -> int:
    if not least <= (number := int(text)) <= _MOST:
        raise ValueError
    return number


def _epochs(text: str) -> float:
    if not 0 < (number := float(text)) < inf:
        raise ValueError
    return number


def _folds_of(text: str) -> str | int:
    return text if text == studies.BY_GROUP else _whole(text, 2)
