"""The replay of a run's last interval, and its result: identical, or the first difference."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM, SettingsError, counted
from gearshift.launcher.config.batching import MICRO
from gearshift.launcher.config.provenance import CliArgs, ResetPart
from gearshift.launcher.run import affinity, experience
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.launcher.saved_runs import saved_model
from gearshift.launcher.saved_runs.rerun import DATA, RerunFailed, rerun, resolved_as
from gearshift.launcher.saved_runs.saved_model import SavedRun, find_saved
from gearshift.training.checkpoint import manifest, retention
from gearshift.training.checkpoint.manifest import CheckpointError, CheckpointUnreadable, Manifest

if TYPE_CHECKING:
    from gearshift.training.checkpoint import compare
    from gearshift.training.checkpoint.compare import Tolerance
    from gearshift.training.checkpoint.reader import Checkpoint

_FP32 = (1e-4, 1e-2)
_LOW_PRECISION = (2e-2, 0.5)
"""Relative tolerances of weights and of moments; measured: docs/results.md."""

FAILURE: Mapping[str, Any] = {
    "identical": False,
    "agrees": False,
    "steps": 0,
    "tensors": 0,
    "tolerance": None,
    "first_difference": None,
}
"""The result for programs if nothing could be compared."""


@dataclass(frozen=True)
class _Resumed:
    """The facts of an event of that kind."""

    written_by: dict[str, str | int]
    reset: tuple[ResetPart, ...]
    changes: list[str]


_RESUMED = TypeAdapter(_Resumed)


@dataclass(frozen=True)
class Replay:
    """The steps between two checkpoints of a run, and how they are trained again."""

    source: Path | None
    """The checkpoint to start from; None: the start of the run."""
    start: int
    """The step of `source`."""
    end: int
    reset: tuple[ResetPart, ...] = ()
    """What the run reinitialized when it was resumed from `source`."""
    changes: tuple[str, ...] = ()
    """What changed the run after `start`, such as restarts, and a replay would lack; notes."""
    engine: str = ""
    world_size: int = 1
    precision: str = "fp32"

    def describe(self) -> str:
        """`steps 4 to 6, ddp on 2 processes`."""
        processes = counted(self.world_size, "process")
        return f"steps {self.start} to {self.end}, {self.engine} on {processes}"


@dataclass(frozen=True)
class VerifyResult:
    """The comparison of the steps of a run with their replay."""

    replay: Replay
    tolerance: Tolerance | None
    is_identical: bool
    """Whether every bit is equal."""
    state: compare.TensorComparison
    lines: compare.MetricsComparison
    notes: Sequence[str]
    """Possible causes of a difference."""

    @property
    def first_difference(self) -> compare.Difference | None:
        """The first one above the tolerance: of the state, or else of the logged lines."""
        return self.state.first or self.lines.first

    @property
    def agrees(self) -> bool:
        """Whether all differences are within the tolerance; without one, whether none exists."""
        return self.first_difference is None


def verify(argument: str, args: CliArgs, announce: Callable[[str], None]) -> VerifyResult:
    """Replay the last interval of the run `argument` in new processes, and compare.

    `args`: engine, processes and data of the replay; by default those of the checkpoint. The run
    folder is only read; `announce` gets a line before the replay. Raises RerunFailed,
    CheckpointError, SettingsError.
    """
    run = find_saved(argument, "verify", args.sets, needs_folder=True)
    assert run.folder is not None
    folder = run.folder
    affinity.limit_spinning(environment.variables())  # before torch is imported
    from gearshift.launcher.saved_runs.split_layers import split_layers

    last, replay, notes = choose(run)
    model = saved_model.model_of(run, last)
    resolved = resolved_as(model, last.manifest, args)
    settings = resolved.settings
    world_size = resolved.batching.world_size
    processes = last.manifest.world_size
    micro_batch = model.settings[MICRO]
    if (world_size, resolved.batching.micro_batch) != (processes, micro_batch):
        split = f"{counted(processes, 'process')} with micro-batches of {micro_batch}"
        check_layers(split_layers(resolved, replay.start), split, argument, args)
    replay = replace(
        replay,
        engine=settings.engine.name,
        world_size=world_size,
        precision=settings.precision,
    )
    announce(f"replaying {replay.describe()}; the run folder is not changed")

    plan = RunPlan(
        resolved,
        request(folder, last, replay.start if replay.source else None, replay.reset, replay.end),
        experience=experience.spec_at(folder, replay.start, replay.end),
    )
    with rerun(plan, replay.source, "replay") as end:
        assert end.folder is not None
        if resolved.device != "cpu" and not settings.train.deterministic:
            notes.append(
                f"train.deterministic is off: {resolved.device} may add numbers in any order"
            )
        return compare_replay(replay, folder, last, end.folder, notes)


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


def choose(run: SavedRun) -> tuple[Checkpoint, Replay, list[str]]:
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
        # Without permission nobody knows whether it is intact.
        except CheckpointUnreadable:
            raise
        except CheckpointError as error:
            notes.append(f"skipped: {error}")
            continue
        start = step
        break
    else:
        notes.append("no earlier checkpoint: replayed from the start of the run")

    assert run.folder is not None
    reset, changes = changes_between(RunReader(run.folder), last.manifest, start, end)
    return (
        last,
        Replay(run.checkpoints.get(start), start, end, reset, tuple(changes)),
        notes + changes,
    )


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
    replay: Replay, run: Path, last: Checkpoint, folder: Path, notes: Sequence[str]
) -> VerifyResult:
    """Compare the checkpoint and metrics in `folder` with those of `run`.

    Reads the disk. Raises CheckpointError if the replay wrote no checkpoint, or the run has no
    tensor or logged line to compare; RerunFailed if it differs after a change that it lacks.
    """
    from gearshift.training.checkpoint import compare, reader
    from gearshift.training.checkpoint.resume_point import changed_data

    name = manifest.step_folder(replay.end)
    replayed = reader.open_checkpoint(folder / retention.CHECKPOINTS / name, verify=False)
    change = changed_data(last.facts.get("data", {}), replayed.facts.get("data", {}))
    if change is not None:  # a replay from the start knows no other
        raise SettingsError.of(
            f"the data has changed since the checkpoint of step {replay.end}: {change}",
            where="data.path",
            allowed=DATA,
        )
    tolerance = None
    original = last.manifest
    if (replay.engine, replay.world_size) != (original.engine, original.world_size):
        # Another engine or world size adds the same numbers in another order.
        tolerance = tolerance_of(replay.precision)

    def compared(
        within: Tolerance | None,
    ) -> tuple[compare.TensorComparison, compare.MetricsComparison]:
        return (
            compare.compare(last, replayed, within),
            compare.compare_metrics(
                RunReader(run).metrics(),
                RunReader(folder).metrics(),
                replay.start,
                replay.end,
                within,
            ),
        )

    # Bit by bit first: the tolerance is for what differs.
    state, lines = compared(None)
    if state.tensors == 0:
        raise CheckpointError(f"nothing was compared: {last.folder} has no tensor")
    if lines.is_missing:
        raise CheckpointError(
            f"nothing was compared: {run / run_folder.METRICS} has no line of the steps "
            f"{replay.start + 1} to {replay.end}"
        )
    is_identical = state.first is None and lines.first is None
    if tolerance is not None and not is_identical:
        state, lines = compared(tolerance)

    if state.noise:
        notes = [
            *notes,
            f"{counted(len(state.noise), 'tensor')} left out, such as {state.noise[0]}: "
            "the gradients of these parameters are rounding only",
        ]
    result = VerifyResult(replay, tolerance, is_identical, state, lines, notes)
    if replay.changes and not result.agrees:
        changes = "; ".join(replay.changes)
        raise RerunFailed(
            f"steps {replay.start} to {replay.end} cannot be replayed: {changes}",
            exit_codes.INVALID_INPUT,
        )
    return result


def tolerance_of(precision: str) -> Tolerance:
    """The bound of what another order of sums changes."""
    from gearshift.training.checkpoint import compare

    return compare.Tolerance(*(_FP32 if precision == "fp32" else _LOW_PRECISION))


def render(result: VerifyResult) -> str:
    """The result as text."""
    state = result.state
    replay = result.replay
    within = "bit by bit"
    if result.tolerance is not None:
        within = f"within {result.tolerance.weights:g} (moments {result.tolerance.moments:g})"

    first = result.first_difference
    if first is not None:
        head = f"different: {_describe(first)}"
    else:
        verdict = "identical" if result.is_identical else f"equal {within}"
        steps = counted(replay.end - replay.start, "step")
        head = f"{verdict}: {state.tensors} tensors, {steps}"
    lines = [head]
    if state.differing:
        most = f"most {state.largest_in}: by {state.largest:.2g} of its norm"
        lines.append(f"  state    {state.differing} of {state.tensors} tensors differ, {most}")
    if result.lines.first not in (None, first):
        lines.append(f"  metrics  {_describe(result.lines.first)}")
    logged = counted(result.lines.lines, "logged line")
    lines.append(f"  replay   {replay.describe()}, {within}; {logged}")
    lines += [f"  note     {note}" for note in result.notes]
    return "\n".join(lines)


def _describe(difference: compare.Difference) -> str:
    return (
        f"{difference.place} is {difference.first} in the run and {difference.second} in the replay"
    )


def as_json(result: VerifyResult) -> dict[str, Any]:
    """The result for programs."""
    replay = result.replay
    state = result.state
    largest = None
    if state.differing:
        largest = {"of": state.largest_in, "relative": state.largest}
    difference = None
    first = result.first_difference
    if first is not None:
        difference = {
            "kind": first.kind,
            "name": first.name,
            "index": first.index,
            "step": first.step,
            "run": first.first,
            "replay": first.second,
        }
    return {
        "identical": result.is_identical,
        "agrees": result.agrees,
        "tolerance": result.tolerance and asdict(result.tolerance),
        "steps": replay.end - replay.start,
        "tensors": state.tensors,
        "first_difference": difference,
        "from_step": replay.start,
        "to_step": replay.end,
        "engine": replay.engine,
        "world_size": replay.world_size,
        "lines": result.lines.lines,
        "differing_tensors": state.differing,
        "largest_difference": largest,
        "notes": list(result.notes),
        "error": None,
    }
