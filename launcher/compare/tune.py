"""Measures the engines that are fastest by the plan, and keeps the best for later runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError, counted
from launcher.base.ending import temporary_folder
from launcher.compare import runner
from launcher.compare.runner import Tell, signals_as_interrupts
from launcher.config.machine import Machine
from launcher.config.options import TUNE
from launcher.config.provenance import STAGED_MODE, Chosen, CliArgs
from launcher.config.schema import AUTO
from launcher.config.selection import choose
from launcher.plan import auto
from launcher.plan.auto import Candidate
from launcher.plan.target import Described
from launcher.resume.decide import Decision, decide
from launcher.run import job_spec
from launcher.run_folder import records

MOST = 3
"""Engines that are measured."""
_LEAST_STEPS = 2
"""The first one warms up and does not count."""


def tune(args: CliArgs, out: Path | None, machine: Machine, tell: Tell) -> None:
    """Train a few steps under the most promising engines; the fastest is used from now on.

    By runs with these settings on this machine, until versions or data change. Each measured run
    has a temporary folder. `tell` gets a line for each. Raises SettingsError and Interrupted.
    """
    steps = _steps(args)
    described = Described(machine)

    def decide_with(chosen: Chosen | None) -> Decision:
        return decide(args, out, machine, None, chosen)

    resolved = decide_with(None).resolved
    if not auto.is_open(resolved):
        name = resolved.values[auto.NAME]
        raise SettingsError.of(
            f"{TUNE.flag} chooses the engine, and {name.origin.where} names it",
            key=auto.NAME,
            where=name.origin.where,
            allowed=f"--engine {AUTO}",
            fix=f"--engine {AUTO}",
        )
    found = auto.candidates(decide_with, described, is_thorough=True)
    fitting = sorted((one for one in found if one.fits), key=lambda one: one.cost)[:MOST]
    if not fitting:
        return  # the run itself says what does not fit
    speeds: list[tuple[float, Candidate]] = []
    with signals_as_interrupts():
        for number, one in enumerate(fitting, start=1):
            speed = _speed(args, one, steps)
            shown = "failed" if speed is None else f"{speed:.4g} samples/s"
            tell(f"measured {number} of {len(fitting)}: {one.engine}: {shown}")
            speeds += [] if speed is None else [(speed, one)]
    if speeds:
        auto.keep(auto.place(resolved, described), _fastest(speeds, steps))


def _fastest(speeds: Sequence[tuple[float, Candidate]], steps: int) -> Chosen:
    ranked = sorted(speeds, key=lambda pair: -pair[0])
    speed, first = ranked[0]
    others = [
        f"{one.needs}: measured {speed / others_speed:.2f} times the time"
        for others_speed, one in ranked
    ]
    measured = counted(steps - 1, "step")
    reason = f"{speed:.4g} samples/s, the fastest of {len(ranked)}, measured over {measured}"
    return Chosen(first.settings, reason, others)


def _speed(args: CliArgs, one: Candidate, steps: int) -> float | None:
    """Samples per second; None: the run failed."""
    changes = {
        **{key: str(value) for key, value in one.settings.items() if key != auto.NAME},
        **{"track": "[]", "stop.after": str(steps), "eval.last": "false", "save.last": "false"},
    }
    with_sets = args.with_sets([f"{key}={value}" for key, value in changes.items()])
    measured = replace(with_sets, engine=one.engine)
    with temporary_folder("gearshift-tune-") as folder:
        ended = runner.run(measured, folder / "run", plan=job_spec.NO_PLAN)
        result = None if ended.error is not None else records.read_result(ended.folder)
    return None if result is None else result["samples_per_s"]


def _steps(args: CliArgs) -> int:
    """The number of --tune. Raises SettingsError."""
    text = args.tune or ""
    where = f"{TUNE.flag} {text}"
    found: list[Diagnostic] = []
    if not text.isdigit() or int(text) < _LEAST_STEPS:
        allowed = f"{_LEAST_STEPS} or more: the first step warms up"
        found.append(Diagnostic(f"{where} is not a count of steps", where=where, allowed=allowed))
    if choose(args).mode == STAGED_MODE:
        found.append(
            Diagnostic(
                f"{TUNE.flag} measures one run, and mode {STAGED_MODE} has one per stage",
                where=where,
                allowed="other modes",
                fix=f"leave out {TUNE.flag}",
            )
        )
    if found:
        raise SettingsError(found)
    return int(text)
