"""The candidates of a comparison: each mode under each engine, checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

from launcher.base import disk
from launcher.base.diagnostics import Diagnostic, SettingsError, render
from launcher.compare import study as studies
from launcher.compare.study import ComparisonRound, Study
from launcher.config import presets
from launcher.config.command_line import CommandLine
from launcher.config.provenance import CliArgs, Resolved
from launcher.config.schema import AUTO, model_name
from launcher.run.prepare import least_room_bytes
from launcher.run_folder import run_folder
from launcher.stages import pipeline
from launcher.stages.pipeline import Pipeline
from training.evaluation.early_stopping import Target, parse_target
from training.settings import TARGET_FORMS

_MOST = 10**6
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
        if self.is_cut:
            return [f"stop.after={self.steps or f'{self.epochs:g} epochs'}"]
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
        found: list[dict[str, Any]] = []
        for name in ("promises", "unpromised"):
            first, *others = (getattr(run, name) for run in (*self.stages.values(), self.resolved))
            given = {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}
            if stage is not None:
                alone = getattr(self.stages[stage], name).items()
                given = {k: v for k, v in alone if k not in given}
            found.append(given)
        return found[0], found[1]

    @property
    def name(self) -> str:
        """Mode and engine."""
        return f"{self.mode} {self.engine}"


@dataclass(frozen=True)
class PlannedComparison:
    """A comparison that is ready to start."""

    candidates: Sequence[ModeCandidate]
    limits: ComparisonLimits
    folder: Path
    warnings: Sequence[Diagnostic]
    study: Study

    @property
    def repeats(self) -> int:
        """How often each run is repeated; 1 in a study."""
        return 1 if self.study.title else len(self.study.rounds)

    @property
    def turns(self) -> Iterator[tuple[int, ComparisonRound]]:
        """The runs in their order: the number of the candidate, and the round."""
        count = len(self.candidates)
        for start, entry in enumerate(self.study.rounds):
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
    errors, warnings = list(command_line.diagnostics), list[Diagnostic]()
    numbers = {flag: _option(values, flag, errors) for flag in _OPTIONS}
    steps, epochs, until, repeats, folds, seeds = numbers.values()
    limits = ComparisonLimits(steps, epochs, until)
    for flags in (("--steps", "--epochs", "--until"), ("--repeat", "--folds"), ("--repeat", "--seeds")):
        if len(given := [flag for flag in flags if flag in values]) > 1:
            message, where = f"{' and '.join(given)} exclude each other", f"the command line: {given[0]}"
            errors.append(Diagnostic(message, where=where, fix=f"leave out {given[0]}"))
    modes, engines = (
        [name for part in values.get(flag, "").split(",") if (name := part.strip())]
        for flag in ("--modes", "--engines")
    )
    if not modes and not engines:
        message, where = "compare needs --modes or --engines", "the command line: compare"
        allowed, fix = "names separated by commas", "--modes default,fast"
        errors.append(Diagnostic(message, where=where, allowed=allowed, fix=fix))
    study, ready = Study.of_repeats(repeats or 1), list[ModeCandidate]()
    pairs = list(product(dict.fromkeys((BASELINE, *modes)), dict.fromkeys(engines) or [args.engine]))
    try:
        if (folds or seeds) and not errors:
            first = _candidate(args, BASELINE, pairs[0][1], limits)
            study = studies.plan(folds, seeds, first.resolved)
            args = args.with_sets(study.rounds[0].sets)
    except SettingsError as error:
        errors += error.diagnostics
    for mode, engine in pairs:
        if engine is None and ready and ready[0].resolved.chosen is not None:
            engine = ready[0].engine  # engine auto may choose another one for each mode
        try:
            ready.append(_candidate(args, mode, engine, limits))
            warnings += ready[-1].warnings
        except SettingsError as error:
            errors += error.diagnostics
    where = "no --out was given" if out is None else f"--out {out}"
    model = model_name(ready[0].resolved.settings.model) if ready else "model"
    name = f"compare-{model.replace(':', '-')}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = run_folder.unused_path(name) if out is None else out
    errors += run_folder.writing_errors(folder, where)
    if errors:
        raise SettingsError(_once(errors))
    needed = max(least_room_bytes(item.resolved) for item in ready)
    disk.check_writable(folder, where, needed_bytes=needed)
    return PlannedComparison(ready, limits, folder, _once(warnings), study)


def _once(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Those of several candidates once."""
    return list({render([diagnostic]): diagnostic for diagnostic in diagnostics}.values())


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
        if key not in resolved.keys.user:
            sets.append(f"{key}={value}")
    name = resolved.settings.engine.name
    is_auto = engine == AUTO or resolved.chosen is not None
    content = replace(arguments, sets=sets, engine=name if is_auto else engine)
    label = mode
    if arguments.mode_file is not None and arguments.mode_file.stem not in presets.modes():
        label = arguments.mode_file.stem
    return ModeCandidate(label.replace("/", "-"), name, content, resolved, stages, warnings)


def _number(kind: type, least: float, most: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if not least <= (number := kind(text)) <= most:
            raise ValueError
        return number

    return parse


_COUNT = (_number(int, 1, _MOST), f"a whole number, 1 to {_MOST:,}")
_FOLDS = _number(int, 2, _MOST)
_OPTIONS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "--steps": _COUNT,
    "--epochs": (_number(float, 1e-9, 1e9), "a number above 0"),
    "--until": (parse_target, TARGET_FORMS),
    "--repeat": _COUNT,
    "--folds": (
        lambda text: text if text == studies.BY_GROUP else _FOLDS(text),
        f"a whole number, at least 2; or {studies.BY_GROUP}: each group is a fold",
    ),
    "--seeds": _COUNT,
}
"""How the value of an option is parsed, and what is allowed."""


def _option(values: Mapping[str, str], flag: str, errors: list[Diagnostic]) -> Any:
    """The value of an option; None: it is not given, or invalid."""
    parse, allowed = _OPTIONS[flag]
    if (text := values.get(flag)) is None:
        return None
    try:
        return parse(text)
    except ValueError:
        where = f"the command line: {flag} {text}"
        errors.append(Diagnostic(f"{flag} '{text}' is invalid", value=text, where=where, allowed=allowed))
        return None
