"""The replay of a run's last interval, and its result: identical, or the first difference."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM, CommandFailed, SettingsError, counted
from gearshift.launcher.config.batching import MICRO
from gearshift.launcher.config.provenance import CliArgs, ResetPart
from gearshift.launcher.run import experience
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.launcher.saved_runs import saved_model
from gearshift.launcher.saved_runs.rerun import DATA, rerun, resolved_as
from gearshift.launcher.saved_runs.saved_model import SavedRun, find_saved
from gearshift.training.callbacks.base import Facts
from gearshift.training.checkpoint import manifest, retention
from gearshift.training.checkpoint.manifest import CheckpointError, CheckpointUnreadable, Manifest

if TYPE_CHECKING:
    from gearshift.launcher.saved_runs.differences import (
        MetricsComparison,
        TensorComparison,
        Tolerance,
    )
    from gearshift.training.checkpoint.reader import Checkpoint

_FP32 = (1e-4, 1e-2)
_LOW_PRECISION = (2e-2, 0.5)
"""Relative tolerances of weights and of moments; measured: docs/results.md."""


@dataclass(frozen=True)
class _Resumed:
    """The facts of an event of that kind."""

    written_by: dict[str, str | int]
    reset: tuple[ResetPart, ...]
    changes: list[str]


_RESUMED = TypeAdapter(_Resumed)


@dataclass(frozen=True)
class Interval:
    """The steps between two checkpoints of a run."""

    source: Path | None
    """The checkpoint to start from; None: the start of the run."""
    start: int
    """The step of `source`."""
    end: int
    reset: tuple[ResetPart, ...] = ()
    """What the run reinitialized when it was resumed from `source`."""
    changes: Sequence[str] = ()
    """What changed the run after `start`, such as restarts, and a replay would lack; notes."""


def verify(argument: str, args: CliArgs, announce: Callable[[str], None]) -> Facts:
    """Replay the last interval of the run `argument` in new processes, and compare.

    `args`: engine, processes and data of the replay; by default those of the checkpoint. The run
    folder is only read; `announce` gets a line before the replay. Raises CommandFailed,
    CheckpointError, SettingsError.
    """
    run = find_saved(argument, "verify", args.sets)
    environment.limit_spinning()  # before torch is imported
    from gearshift.launcher.saved_runs.split_layers import split_layers

    last, interval, notes = choose(run)
    model = saved_model.model_of(run, last)
    resolved = resolved_as(model, last.manifest, args)
    settings = resolved.settings
    world_size = resolved.batching.world_size
    processes = last.manifest.world_size
    micro_batch = model.settings[MICRO]
    if (world_size, resolved.batching.micro_batch) != (processes, micro_batch):
        split = f"{counted(processes, 'process')} with micro-batches of {micro_batch}"
        check_layers(split_layers(resolved, interval.start), split, argument, args)
    steps = _describe(interval.start, interval.end, settings.engine.name, world_size)
    announce(f"replaying {steps}; the run folder is not changed")

    step = interval.start if interval.source else None
    plan = RunPlan(
        resolved,
        request(run.folder, last, step, interval.reset, interval.end),
        experience=experience.spec_at(run.folder, interval.start, interval.end),
    )
    with rerun(plan, interval.source, "replay") as end:
        assert end.folder is not None
        if resolved.device != "cpu" and not settings.train.deterministic:
            notes.append(
                f"train.deterministic is off: {resolved.device} may add numbers in any order"
            )
        return compare_replay(interval, run.folder, last, end.folder, notes)


def check_layers(
    layers: Mapping[str, Sequence[str]], split: str, argument: str, args: CliArgs
) -> None:
    """Raise SettingsError if there are `layers`, see split_layers: no tolerance holds for them.

    `split`: that of the run, in words; `argument` and `args`: as in verify.
    """
    if not layers:
        return
    kinds = []
    for kind, (first, *others) in layers.items():
        names = f"{first} and {len(others)} more" if others else first
        kinds.append(f"{kind} ({names})")
    words = ["verify", argument]
    if args.engine:
        words += ["--engine", args.engine]
    for option in args.options.values():
        words += option
    # Without the options that divide the batch otherwise, the split is that of the run.
    same_split = ["verify", argument, *args.options.get("data.path", ())]
    raise SettingsError.of(
        f"another split of the batch gives other numbers in {', '.join(kinds)}",
        key="engine.nproc",
        value=layers,
        where=f"the command line: {shlex.join(words)}",
        allowed=f"the split of the run, under any engine: {split}",
        fix=f"{PROGRAM} {shlex.join(same_split)}",
    )


def choose(run: SavedRun) -> tuple[Checkpoint, Interval, list[str]]:
    """The last or the named checkpoint, the interval that ends there, and notes about it.

    The interval starts at the last intact checkpoint before it, or at the start of the run. The
    checksums of both are verified. Raises CheckpointError if the last checkpoint is damaged, or one
    cannot be read for lack of permission.
    """
    from gearshift.training.checkpoint.reader import open_checkpoint

    steps = list(run.checkpoints)
    if run.named is not None:
        while not run.checkpoints[steps[-1]].samefile(run.named):
            steps.pop()
    end = steps.pop()
    last = open_checkpoint(run.checkpoints[end])

    start = 0
    notes = []
    for step in reversed(steps):
        try:
            open_checkpoint(run.checkpoints[step])
        # Without permission it is unknown whether it is intact.
        except CheckpointUnreadable:
            raise
        except CheckpointError as error:
            notes.append(f"skipped: {error}")
            continue
        start = step
        break
    else:
        notes.append("no earlier checkpoint: replayed from the start of the run")

    reset, changes = changes_between(RunReader(run.folder), last.manifest, start, end)
    interval = Interval(run.checkpoints.get(start), start, end, reset, changes)
    return last, interval, notes + changes


def request(
    folder: Path, last: Checkpoint, step: int | None, reset: Sequence[ResetPart], until: int
) -> ResumeRequest:
    """A replay from the checkpoint of `step`, or else the start, with what `last` has measured."""
    shares = [(begin, samples) for begin, samples in last.facts.get("shares") or ()]
    return ResumeRequest(
        folder,
        step=step,
        reset=reset,
        until=until,
        shares=shares,
        fits=last.facts.get("fits") or (),
    )


def changes_between(
    reader: RunReader, last: Manifest, start: int, end: int
) -> tuple[tuple[ResetPart, ...], list[str]]:
    """What the run reinitialized at `start`, and notes on what changed it from there to `end`.

    `last`: the manifest of the checkpoint at `end`.
    """
    restarts: dict[int, _Resumed] = {}
    smaller = []
    for event in reader.events():
        step = event["step"]
        if step >= end:
            continue
        if event["kind"] == "smaller_micro_batch":
            smaller.append(f"memory ran short at step {step}: smaller micro-batches since then")
        elif event["kind"] == "resumed":
            smaller.clear()  # it takes those of the settings again
            # Of several at one step the last counts: the results of the others were replaced.
            with suppress(ValueError):
                restarts[step] = _RESUMED.validate_python(event["facts"])

    changes = []
    writer = {"engine": last.engine, "world_size": last.world_size}
    for step, resumed in sorted(restarts.items()):
        has_changed = (
            resumed.reset or resumed.changes or not writer.items() <= resumed.written_by.items()
        )
        if step > start and has_changed:
            changes.append(
                f"the run was resumed with changes at step {step}, whose checkpoint is gone, "
                f"see {run_folder.EVENTS}"
            )
    reset = restarts[start].reset if start in restarts else ()
    return reset, changes + smaller


def compare_replay(
    interval: Interval, run: Path, last: Checkpoint, folder: Path, notes: Sequence[str]
) -> Facts:
    """Compare the checkpoint and metrics in `folder` with those of `run`; the result for programs.

    Reads the disk. Raises CheckpointError if the replay wrote no checkpoint, or the run has no
    tensor or logged line to compare; CommandFailed if it differs after a change that it lacks.
    """
    from gearshift.launcher.saved_runs import differences
    from gearshift.training.checkpoint import reader
    from gearshift.training.checkpoint.resume_point import changed_data

    start = interval.start
    end = interval.end
    name = manifest.step_folder(end)
    replayed = reader.open_checkpoint(folder / retention.CHECKPOINTS / name, verify=False)
    change = changed_data(last.facts.get("data", {}), replayed.facts.get("data", {}))
    if change is not None:  # a replay from the start knows no other
        raise SettingsError.of(
            f"the data has changed since the checkpoint of step {end}: {change}",
            where="data.path",
            allowed=DATA,
        )

    def compared(within: Tolerance | None) -> tuple[TensorComparison, MetricsComparison]:
        before = RunReader(run).metrics()
        now = RunReader(folder).metrics()
        state = differences.compare(last, replayed, within)
        return state, differences.compare_metrics(before, now, start, end, within)

    # Bit by bit first: the tolerance is for what differs.
    state, lines = compared(None)
    if state.tensors == 0:
        raise CheckpointError(f"nothing was compared: {last.folder} has no tensor")
    if lines.is_missing:
        raise CheckpointError(
            f"nothing was compared: {run / run_folder.METRICS} has no line of the steps "
            f"{start + 1} to {end}"
        )
    is_identical = state.first is None and lines.first is None
    tolerance = None
    original = last.manifest
    writer = replayed.manifest
    if (writer.engine, writer.world_size) != (original.engine, original.world_size):
        # Another engine or world size adds the same numbers in another order.
        tolerance = tolerance_of(replayed.facts["settings"]["precision"])
        if not is_identical:
            state, lines = compared(tolerance)

    first = state.first or lines.first
    if interval.changes and first is not None:
        changes = "; ".join(interval.changes)
        raise CommandFailed(
            f"steps {start} to {end} cannot be replayed: {changes}",
            exit_codes.INVALID_INPUT,
        )
    if state.noise:
        notes = [
            *notes,
            f"{counted(len(state.noise), 'tensor')} left out, such as {state.noise[0]}: "
            "the gradients of these parameters are rounding only",
        ]
    largest = None
    if state.differing:
        largest = {"of": state.largest_in, "relative": state.largest}
    difference = None
    if first is not None:
        difference = asdict(first)
        difference["run"] = difference.pop("first")
        difference["replay"] = difference.pop("second")
        difference["place"] = first.place
    return {
        "identical": is_identical,
        "agrees": first is None,
        "tolerance": tolerance and asdict(tolerance),
        "steps": end - start,
        "tensors": state.tensors,
        "first_difference": difference,
        "from_step": start,
        "to_step": end,
        "engine": writer.engine,
        "world_size": writer.world_size,
        "lines": lines.lines,
        "differing_tensors": state.differing,
        "largest_difference": largest,
        "notes": notes,
        "error": None,
    }


def tolerance_of(precision: str) -> Tolerance:
    """The bound of what another order of sums changes."""
    from gearshift.launcher.saved_runs import differences

    return differences.Tolerance(*(_FP32 if precision == "fp32" else _LOW_PRECISION))


def render(facts: Facts) -> str:
    """The result as text."""
    within = "bit by bit"
    if facts["tolerance"] is not None:
        weights, moments = facts["tolerance"].values()
        within = f"within {weights:g} (moments {moments:g})"
    first = facts["first_difference"]
    if first is not None:
        numbers = f"{first['run']} in the run and {first['replay']} in the replay"
        lines = [f"different: {first['place']} is {numbers}"]
    else:
        verdict = "identical" if facts["identical"] else f"equal {within}"
        steps = counted(facts["steps"], "step")
        lines = [f"{verdict}: {facts['tensors']} tensors, {steps}"]
    largest = facts["largest_difference"]
    if largest is not None:
        most = f"most {largest['of']}: by {largest['relative']:.2g} of its norm"
        count = f"{facts['differing_tensors']} of {facts['tensors']} tensors"
        lines.append(f"  state    {count} differ, {most}")
    replay = _describe(facts["from_step"], facts["to_step"], facts["engine"], facts["world_size"])
    lines.append(f"  replay   {replay}, {within}; {counted(facts['lines'], 'logged line')}")
    lines += [f"  note     {note}" for note in facts["notes"]]
    return "\n".join(lines)


def _describe(start: int, end: int, engine: str, world_size: int) -> str:
    """`steps 4 to 6, ddp on 2 processes`."""
    return f"steps {start} to {end}, {engine} on {counted(world_size, 'process')}"
