"""The candidates of a comparison: each mode under each engine, checked before anything starts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from gearshift.launcher.base import disk
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, invalid
from gearshift.launcher.base.redaction import redact_values
from gearshift.launcher.compare import study as studies
from gearshift.launcher.compare.study import Study
from gearshift.launcher.config import machine, presets
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.provenance import CliArgs, Resolved
from gearshift.launcher.config.schema import AUTO, model_name
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.stages import pipeline
from gearshift.launcher.stages.pipeline import distinct
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.evaluation.early_stopping import Target, parse_target
from gearshift.training.settings import TARGET_FORMS

BASELINE = "default"
"""The mode that promises refer to; always compared."""
AFTER = "stop.after"
AT = "stop.at"
_COUNT = TypeAdapter(Annotated[int, Field(ge=1, le=10**6)])
_FOLDS: TypeAdapter[Any] = TypeAdapter(Literal["groups"] | Annotated[int, Field(ge=2, le=10**6)])
_A_COUNT = "a whole number, 1 to 1,000,000"
_A_FOLD = "a whole number, at least 2; or groups: each group is a fold"
_OPTIONS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "--steps": (_COUNT.validate_python, _A_COUNT),
    "--until": (parse_target, TARGET_FORMS),
    "--repeat": (_COUNT.validate_python, _A_COUNT),
    "--folds": (_FOLDS.validate_python, _A_FOLD),
    "--seeds": (_COUNT.validate_python, _A_COUNT),
}
"""How the value of an option is parsed, and what is allowed."""


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
    def name(self) -> str:
        """Mode and engine."""
        return f"{self.mode} {self.engine}"

    def promised(self, stage: str | None = None) -> tuple[Json, dict[str, str]]:
        """The promises of the mode, and why others are outside of their scope.

        Of staged training those that all stages share; of a `stage` those that it has alone.
        """
        runs = [*self.stages.values()]
        run = self.stages[stage] if stage else self.resolved
        promises = _of_whole(run.promises, [each.promises for each in runs], not stage)
        unpromised = _of_whole(run.unpromised, [each.unpromised for each in runs], not stage)
        return promises, unpromised


def _of_whole(facts: Facts, of_stages: Sequence[Facts], is_whole: bool) -> Json:
    """Those of the `facts` that all stages share, or else those that not all share."""
    chosen = {}
    for key, value in facts.items():
        if is_whole == all(other.get(key) == value for other in of_stages):
            chosen[key] = value
    return chosen


@dataclass(frozen=True)
class PlannedComparison:
    """A comparison that is ready to start."""

    candidates: Sequence[ModeCandidate]
    folder: Path
    study: Study
    limits: Facts = field(default_factory=dict)
    """How far each run goes, by the key of the setting; empty: to its end."""
    warnings: Sequence[Diagnostic] = ()
    facts: Facts = field(default_factory=dict)
    """Command, machine, device, and the time `at` which it began."""

    @property
    def until(self) -> Target | None:
        """What all runs are to reach."""
        target = self.limits.get(AT)
        return parse_target(target) if target else None

    @property
    def turns(self) -> Iterator[tuple[int, str]]:
        """The runs in their order: the number of the candidate, and the round."""
        count = len(self.candidates)
        for start, name in enumerate(self.study.rounds):
            # Each round starts with another candidate, so that warm-up and drift affect each.
            for position in range(start, start + count):
                yield position % count, name

    def run_folder(self, number: int, name: str) -> Path:
        """The run folder of a candidate in a round."""
        candidate = self.candidates[number]
        return self.folder / "runs" / f"{candidate.mode}-{candidate.engine}-{name}"


def decide(command_line: CommandLine) -> PlannedComparison:
    """Resolve every candidate without starting a run. Raises SettingsError with all errors.

    Reads the data if there are folds.
    """
    errors = list(command_line.diagnostics)
    options = _options(command_line, errors)
    modes = _names(command_line, "--modes")
    engines = _names(command_line, "--engines")
    if not modes and not engines:
        errors.append(
            Diagnostic(
                "compare needs --modes or --engines",
                where="the command line: compare",
                allowed="names separated by commas",
                fix="--modes default,fast",
            )
        )

    # As settings, which each run gets like those of the user.
    limits = []
    if "--steps" in options:
        limits.append(f"{AFTER}={options['--steps']}")
    if "--until" in options:
        limits.append(f"{AT}={options['--until'].text()}")
    args = command_line.args
    args = replace(args, sets=[*args.sets, *limits])

    # Mode default always runs: promises refer to it.
    modes = list(dict.fromkeys([BASELINE, *modes]))
    pairs = list(product(modes, engines or (args.engine,)))
    folds = options.get("--folds")
    seeds = options.get("--seeds")
    repeats = options.get("--repeat", 1)
    study = Study({str(number): () for number in range(1, repeats + 1)})
    # Folds are made of the data of mode default, which must be valid first.
    if (folds or seeds) and not errors:
        try:
            default = _candidate(args, BASELINE, pairs[0][1])
            study = studies.plan(folds, seeds, default.resolved)
            # All candidates are checked with the settings of the first round.
            args = args.with_sets(next(iter(study.rounds.values())))
        except SettingsError as error:
            errors += error.diagnostics

    candidates: list[ModeCandidate] = []
    for mode, engine in pairs:
        if engine is None and candidates and candidates[0].resolved.chosen:
            engine = candidates[0].engine  # engine auto may choose another one for each mode
        try:
            candidates.append(_candidate(args, mode, engine))
        except SettingsError as error:
            errors += error.diagnostics

    folder = command_line.out
    where = f"--out {folder}"
    if folder is None:
        where = "no --out was given"
        model = "model"
        if candidates:
            model = model_name(candidates[0].resolved.settings.model).replace(":", "-")
        name = f"compare-{model}-{datetime.now():%Y%m%d-%H%M%S}"
        folder = run_folder.unused_path(name)
    errors += run_folder.writing_errors(folder, where)
    if errors:
        raise SettingsError(distinct(errors))
    disk.check_writable(folder, where)

    values = candidates[0].resolved.values
    argv = redact_values(command_line.argv)
    return PlannedComparison(
        candidates,
        folder,
        study,
        {key: values[key].value for key in (AFTER, AT) if values[key].value is not None},
        warnings=distinct(chain.from_iterable(item.warnings for item in candidates)),
        facts={
            "command": f"{command_line.command.call} {shlex.join(argv)}",
            "machine": machine.detect_machine().sentence,
            "device": candidates[0].resolved.device,
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    )


def _options(command_line: CommandLine, errors: list[Diagnostic]) -> Json:
    """The values of the options of a comparison by flag; those that are invalid join `errors`."""
    values = {}
    for flag, (parse, allowed) in _OPTIONS.items():
        text = command_line.values.get(flag)
        if text is None:
            continue
        try:
            values[flag] = parse(text)
        except ValueError:
            errors.append(invalid(flag, text, allowed))
    if "--repeat" in command_line.values and not values.keys().isdisjoint(("--folds", "--seeds")):
        errors.append(
            Diagnostic(
                "--repeat repeats one run, not those of folds and seeds",
                where="the command line: --repeat",
                fix="",
                replaces=("--repeat",),
            )
        )
    return values


def _names(command_line: CommandLine, flag: str) -> list[str]:
    """Names separated by commas, each once."""
    names = map(str.strip, command_line.values.get(flag, "").split(","))
    return list(filter(None, dict.fromkeys(names)))


def _candidate(args: CliArgs, mode: str, engine: str | None) -> ModeCandidate:
    """One mode under one engine. Raises SettingsError where that run is invalid."""
    arguments = replace(args, mode=mode, mode_option="--mode", engine=engine)
    ready = pipeline.prepare(arguments, None, [])
    if ready.launched:
        raise SettingsError.of(
            f"compare starts its own processes, but {ready.launched.source} started this one",
            where="the environment",
            allowed="a plain shell",
        )
    stages = {stage.name: plan.resolved for stage, plan in ready.left if stage.name}
    _, last = ready.left[-1]
    resolved = last.resolved

    every = 1
    if resolved.device != "cpu":  # a GPU waits for each logged line
        after = resolved.values[AFTER].value
        every = max(1, min(10, after // 5)) if isinstance(after, int) else 10
    # What the comparison adds gives way to what the user set.
    sets = list(args.sets)
    for key, value in (("log.every", every), ("train.preview", "false")):
        if key not in resolved.keys.user:
            sets.append(f"{key}={value}")
    name = resolved.settings.engine.name
    # It is named, so that each repeat runs under the engine that was chosen here.
    if engine == AUTO or resolved.chosen:
        engine = name
    arguments = replace(arguments, sets=sets, engine=engine)
    path = arguments.mode_file
    label = mode
    if path and path.stem not in presets.modes():
        label = path.stem
    return ModeCandidate(label.replace("/", "-"), name, arguments, resolved, stages, ready.warnings)
