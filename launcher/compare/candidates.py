"""The candidates of a comparison: each mode under each engine, checked before anything starts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from gearshift.launcher.base import disk
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError
from gearshift.launcher.base.redaction import redact
from gearshift.launcher.compare import study as studies
from gearshift.launcher.compare.study import Study
from gearshift.launcher.config import machine, presets
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.provenance import CliArgs, Resolved
from gearshift.launcher.config.schema import AUTO, model_name
from gearshift.launcher.run.prepare import least_room_bytes
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.stages import pipeline
from gearshift.launcher.stages.pipeline import distinct
from gearshift.training.evaluation.early_stopping import Target, parse_target
from gearshift.training.settings import TARGET_FORMS

BASELINE = "default"
"""The mode that promises refer to; always compared."""
_COUNT = (
    TypeAdapter(Annotated[int, Field(ge=1, le=10**6)]).validate_python,
    "a whole number, 1 to 1,000,000",
)
_FOLDS: TypeAdapter[Any] = TypeAdapter(Literal["groups"] | Annotated[int, Field(ge=2, le=10**6)])
_EPOCHS = TypeAdapter(Annotated[float, Field(gt=0, le=1e9)])
_OPTIONS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "--steps": _COUNT,
    "--epochs": (_EPOCHS.validate_python, "a number above 0"),
    "--until": (parse_target, TARGET_FORMS),
    "--repeat": _COUNT,
    "--folds": (
        _FOLDS.validate_python,
        "a whole number, at least 2; or groups: each group is a fold",
    ),
    "--seeds": _COUNT,
}
"""How the value of an option is parsed, and what is allowed."""
_EXCLUSIVE = (("--steps", "--epochs", "--until"), ("--repeat", "--folds"), ("--repeat", "--seeds"))


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

    def promised(self, stage: str | None = None) -> tuple[dict[str, Any], dict[str, str]]:
        """The promises of the mode, and why others are outside of their scope.

        Of staged training those that all stages share; of a `stage` those that it has alone.
        """
        runs = [*self.stages.values()] or [self.resolved]
        alone = self.resolved if stage is None else self.stages[stage]

        def of_stage(by_run: Sequence[Mapping[str, Any]], own: Mapping[str, Any]) -> dict[str, Any]:
            shared = {
                k: v for k, v in by_run[0].items() if all(other.get(k) == v for other in by_run)
            }
            return shared if stage is None else {k: v for k, v in own.items() if k not in shared}

        promises = of_stage([run.promises for run in runs], alone.promises)
        return promises, of_stage([run.unpromised for run in runs], alone.unpromised)


@dataclass(frozen=True)
class PlannedComparison:
    """A comparison that is ready to start."""

    candidates: Sequence[ModeCandidate]
    folder: Path
    study: Study
    limits: Sequence[str] = ()
    """How far each run goes, as values of --set; empty: to its end."""
    warnings: Sequence[Diagnostic] = ()
    steps: int | None = None
    epochs: float | None = None
    until: Target | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    """Command, machine, device, and the time `at` which it began."""

    @property
    def repeats(self) -> int:
        """How often each run is repeated; 1 in a study."""
        return 1 if self.study.title else len(self.study.rounds)

    @property
    def turns(self) -> Iterator[tuple[int, str]]:
        """The runs in their order: the number of the candidate, and the round."""
        count = len(self.candidates)
        for start, name in enumerate(self.study.rounds):
            # Each round starts with another candidate, so that warm-up and drift affect each.
            yield from (((position + start) % count, name) for position in range(count))

    def run_folder(self, number: int, name: str) -> Path:
        """The run folder of a candidate in a round."""
        item = self.candidates[number]
        return self.folder / "runs" / f"{item.mode}-{item.engine}-{name}"


def decide(command_line: CommandLine) -> PlannedComparison:
    """Resolve every candidate without starting a run. Raises SettingsError with all errors.

    Reads the data if there are folds.
    """
    values = command_line.values
    out = command_line.out
    args = command_line.args
    errors = list(command_line.diagnostics)
    given: dict[str, Any] = {}

    def invalid(message: str, typed: str, **parts: Any) -> None:
        errors.append(Diagnostic(message, where=f"the command line: {typed}", **parts))

    for flag, (parse, allowed) in _OPTIONS.items():
        text = values.get(flag)
        try:
            given[flag] = None if text is None else parse(text)
        except ValueError:
            invalid(f"{flag} '{text}' is invalid", f"{flag} {text}", value=text, allowed=allowed)
    for flags in _EXCLUSIVE:
        if len(both := [flag for flag in flags if flag in values]) > 1:
            invalid(f"{' and '.join(both)} exclude each other", both[0], fix=f"leave out {both[0]}")
    modes, engines = (
        [name for part in values.get(flag, "").split(",") if (name := part.strip())]
        for flag in ("--modes", "--engines")
    )
    if not modes and not engines:
        allowed = "names separated by commas"
        fix = "--modes default,fast"
        invalid("compare needs --modes or --engines", "compare", allowed=allowed, fix=fix)
    steps, epochs, until, repeats, folds, seeds = map(given.get, _OPTIONS)
    study = Study({str(n): () for n in range(1, (repeats or 1) + 1)})
    candidates: list[ModeCandidate] = []
    limits = [f"stop.after={steps or f'{epochs:g} epochs'}"] if steps or epochs else []
    limits = limits if until is None else [f"stop.at={until.text()}"]
    args = replace(args, sets=[*args.sets, *limits])
    pairs = list(
        product(dict.fromkeys((BASELINE, *modes)), dict.fromkeys(engines) or [args.engine])
    )
    try:
        if (folds or seeds) and not errors:
            study = studies.plan(
                folds, seeds, _candidate(args, BASELINE, pairs[0][1], steps).resolved
            )
            args = args.with_sets(next(iter(study.rounds.values())))
    except SettingsError as error:
        errors += error.diagnostics
    for mode, engine in pairs:
        if engine is None and candidates and candidates[0].resolved.chosen is not None:
            engine = candidates[0].engine  # engine auto may choose another one for each mode
        try:
            candidates.append(_candidate(args, mode, engine, steps))
        except SettingsError as error:
            errors += error.diagnostics
    where = f"--out {out}"
    folder = out
    if folder is None:
        model = model_name(candidates[0].resolved.settings.model) if candidates else "model"
        name = f"compare-{model.replace(':', '-')}-{datetime.now():%Y%m%d-%H%M%S}"
        where = "no --out was given"
        folder = run_folder.unused_path(name)
    errors += run_folder.writing_errors(folder, where)
    if errors:
        raise SettingsError(distinct(errors))
    needed = max(least_room_bytes(item.resolved) for item in candidates)
    disk.check_writable(folder, where, needed_bytes=needed)
    warnings = distinct(warning for item in candidates for warning in item.warnings)
    facts = {
        "command": redact(f"{command_line.command.call} {shlex.join(command_line.argv)}"),
        "machine": machine.detect_machine().sentence,
        "device": candidates[0].resolved.device,
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return PlannedComparison(
        candidates, folder, study, limits, warnings, steps, epochs, until, facts
    )


def _candidate(args: CliArgs, mode: str, engine: str | None, steps: int | None) -> ModeCandidate:
    """One mode under one engine. Raises SettingsError where that run is invalid."""
    arguments = replace(args, mode=mode, mode_option="--mode", engine=engine)
    ready = pipeline.prepare(arguments, None, [])
    if ready.launched is not None:
        what = f"compare starts its own processes, but {ready.launched.source} started this one"
        raise SettingsError.of(what, where="the environment", allowed="a plain shell")
    stages = {stage.name: plan.resolved for stage, plan in ready.left if ready.is_staged}
    resolved = ready.left[-1][1].resolved
    every = 1
    if resolved.device != "cpu":  # a GPU waits for each logged line
        every = 10 if steps is None else max(1, min(10, steps // 5))
    added = {"log.every": every, "train.preview": "false"}
    sets = [f"{key}={value}" for key, value in added.items() if key not in resolved.keys.user]
    name = resolved.settings.engine.name
    is_auto = engine == AUTO or resolved.chosen is not None
    arguments = replace(arguments, sets=[*args.sets, *sets], engine=name if is_auto else engine)
    path = arguments.mode_file
    label = mode if path is None or path.stem in presets.modes() else path.stem
    return ModeCandidate(label.replace("/", "-"), name, arguments, resolved, stages, ready.warnings)
