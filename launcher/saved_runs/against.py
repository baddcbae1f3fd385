"""Why two runs differ: their records, the first step that differs, and what differs first in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM, SettingsError, counted
from gearshift.launcher.base.temporary import temporary_folder
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.render import ORIGINS
from gearshift.launcher.run import affinity, experience
from gearshift.launcher.run_folder import lock
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.launcher.saved_runs import saved_model
from gearshift.launcher.saved_runs.rerun import RerunFailed, rerun, resolved_as
from gearshift.launcher.saved_runs.saved_model import SavedRun, find_saved
from gearshift.launcher.saved_runs.verify import changes_between, tolerance_of
from gearshift.training.checkpoint import manifest, retention

if TYPE_CHECKING:
    from gearshift.launcher.saved_runs.records import RecordDifference
    from gearshift.training.checkpoint.compare import Difference, Tolerance
    from gearshift.training.checkpoint.reader import Checkpoint
    from gearshift.training.trace_comparison import TraceDifference

_PREFIX = "gearshift-against-"
_END = 2**53
"""After the last step of any run."""
LINE = "line"
EVALUATION = "evaluation"
STATE = "state"
RESUME = "resume"
UNSET = "unset"
UNKNOWN = "unknown"

_ORDER_OF_SUMS = (
    *("setting precision", "setting compile", "setting memory.", "setting train.deterministic"),
    *("setting train.micro_batch", "engine ", "threads ", "package ", "machine "),
)
_MODEL = ("setting model.", "source ")
_EXPLAINED_BY: Mapping[str, Sequence[str]] = {
    "sample": (
        *("data ", "setting train.global_batch", "setting data.", "seed ", "setting eval.share"),
        *("source ", "package "),
    ),
    "weight": ("seed ", *_MODEL, "data ", "setting data.", "setting optim.", *_ORDER_OF_SUMS),
    "buffer": ("seed ", *_MODEL, "data ", "setting data.", *_ORDER_OF_SUMS),
    "draw": (*_MODEL, "seed ", "setting data.", *_ORDER_OF_SUMS),
    "output": (*_MODEL, *_ORDER_OF_SUMS, "data ", "setting data.", "seed "),
    "loss": (*_MODEL, *_ORDER_OF_SUMS, "data ", "setting data."),
    "gradient": (*_MODEL, *_ORDER_OF_SUMS),
    "option": ("setting optim.", "setting schedule.", "setting train.", *_MODEL),
    "optimizer": ("setting optim.", *_ORDER_OF_SUMS, "source "),
    EVALUATION: ("setting eval.", "data ", "setting data.", "source ", *_ORDER_OF_SUMS),
    LINE: (
        *("seed ", "data ", "setting data.", *_MODEL, "setting optim.", "setting schedule."),
        *("setting train.", *_ORDER_OF_SUMS),
    ),
}
"""By what differs first: the kinds and keys of records that can be the cause, likely ones first."""


@dataclass(frozen=True)
class Cause:
    """What made two runs differ."""

    kind: str
    """A kind of record; "state": a checkpoint was changed; "resume": what a checkpoint lacks was
    lost; "unset": neither seed, settings nor data set it; "unknown"."""
    key: str
    sentence: str
    a: Any = None
    b: Any = None
    origins: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True)
class FirstDifference:
    """The first thing that differs."""

    step: int
    """The step that computed it; 0: it is there before the first one."""
    kind: str
    """One of those of the table of causes."""
    name: str
    index: Any = None
    """The sample, or the element of a tensor."""
    a: Any = None
    b: Any = None
    relative: float | None = None

    @property
    def place(self) -> str:
        """`gradient of model.head.weight`, `sample 17`."""
        if self.kind == "sample":
            what = "another sample" if self.name == "index" else "other content"
            return f"sample {self.index} ({what})"
        at = "" if self.index is None else str(list(self.index))
        if self.kind in ("optimizer", "option", LINE, EVALUATION) or not self.name:
            return f"{self.name}{at}" or self.kind
        return f"{self.kind} of {self.name}{at}"


@dataclass(frozen=True)
class Comparison:
    """Two runs compared."""

    runs: tuple[str, str]
    lines: int
    checkpoints: int
    tensors: int
    first: FirstDifference | None = None
    """None: all that both have is equal, bit by bit."""
    logged: str | None = None
    """What the first line or checkpoint that differs shows."""
    cause: Cause | None = None
    is_rounding: bool = False
    start: int | None = None
    """The step after which the replays began; None: nothing was replayed."""
    excluded: Sequence[str] = ()
    """Kinds of records that are equal."""
    notes: Sequence[str] = ()

    @property
    def is_identical(self) -> bool:
        """Whether no bit differs."""
        return self.first is None


FAILURE: Mapping[str, Any] = {
    "identical": False,
    "first_difference": None,
    "cause": None,
    "excluded": [],
    "rounding": False,
}
"""The result for programs if nothing could be compared."""


@dataclass(frozen=True)
class Side:
    """One of two runs to compare."""

    name: str
    """As typed."""
    run: SavedRun
    folder: Path

    @property
    def reader(self) -> RunReader:
        """Its records."""
        return RunReader(self.folder)

    def checkpoint(self, step: int) -> Checkpoint:
        """Its first checkpoint of `step` or later, or else the last one."""
        from gearshift.training.checkpoint.reader import open_checkpoint

        later = [number for number in self.run.checkpoints if number >= step]
        return open_checkpoint(self.run.checkpoints[min(later, default=max(self.run.checkpoints))])

    def origin(self, key: str) -> str | None:
        """Where a setting comes from; None: unknown."""
        entry = (self.reader.object(ORIGINS) or {}).get(key)
        return entry and str(entry["origin"])


@dataclass
class _Replayed:
    """What replays tell."""

    is_reproduced: list[bool] = field(default_factory=list)
    """Whether each run is as its replay."""
    state: list[Difference | None] = field(default_factory=list)
    """How the last checkpoint of each run differs from that of its replay."""
    traces: list[Path] = field(default_factory=list)


def compare_runs(
    words: tuple[str, str], args: CliArgs, announce: Callable[[str], None]
) -> Comparison:
    """Compare the runs in two folders, and find why they differ by replaying both.

    Only reads them. `args` may name new folders of what they read; `announce` gets a line before
    the replays. Raises SettingsError, CheckpointError.
    """
    sides = _opened(words, args)
    affinity.limit_spinning(environment.variables())  # before torch is imported
    from gearshift.launcher.saved_runs import records
    from gearshift.training.checkpoint import compare

    a, b = sides
    lines = compare.compare_metrics(a.reader.metrics(), b.reader.metrics(), 0, _END)
    equal = 0
    tensors = 0
    changed: Difference | None = None
    changed_at = _END
    common = sorted(a.run.checkpoints.keys() & b.run.checkpoints.keys())
    for step in common:
        state = compare.compare(a.checkpoint(step), b.checkpoint(step))
        tensors += state.tensors
        if state.first is not None:
            changed = state.first
            changed_at = step
            break
        equal = step
    if not lines.lines and not common:
        raise SettingsError.of(
            f"{a.name} and {b.name} have no common step: no logged line and no checkpoint",
            value=b.name,
            where=_where(words),
            allowed="runs that logged or saved a step of the same number",
            hint="train both with the same log.every",
        )
    counts = {"lines": lines.lines, "checkpoints": len(common), "tensors": tensors}

    logged_at = lines.first.step if lines.first is not None and lines.first.step else _END
    step = min(changed_at, logged_at)
    ends = (a.checkpoint(step), b.checkpoint(step))
    differing = records.differences(*ends)
    excluded = records.excluded(*ends, differing)
    if step == _END:
        notes = [_sentence(each, sides) + ", which changed nothing" for each in differing]
        return Comparison(words, **counts, excluded=excluded, notes=notes)

    # The state of a step differs after its line was logged.
    visible = lines.first if logged_at <= changed_at else changed
    assert visible is not None
    logged = f"{visible.place} is {visible.first} in {a.name} and {visible.second} in {b.name}"
    if visible is changed:
        logged += f", in the checkpoints of step {step}"
    search = _Search(sides, ends, differing, equal, step, visible, announce)
    with temporary_folder(_PREFIX) as home:
        first, cause, is_rounding, notes = search.run(home)
    return Comparison(
        words,
        **counts,
        first=first,
        logged=logged,
        cause=cause,
        is_rounding=is_rounding,
        start=search.start if search.is_replayed else None,
        excluded=excluded,
        notes=notes,
    )


def _where(words: tuple[str, str]) -> str:
    return f"the command line: verify {words[0]} --against {words[1]}"


def _opened(words: tuple[str, str], args: CliArgs) -> tuple[Side, Side]:
    """The two runs. Raises SettingsError if they cannot be compared."""
    typed = [option for option, _ in args.options.values()]
    if args.engine is not None:
        typed.append("--engine")
    if typed:
        raise SettingsError.of(
            f"{typed[0]} does not go with --against: each run is replayed as it was",
            value=typed[0],
            where=_where(words),
            fix=f"{PROGRAM} verify {words[0]} --against {words[1]}",
        )
    sides = []
    for word in words:
        run = find_saved(word, "verify", args.sets, needs_folder=True)
        assert run.folder is not None
        if lock.is_held(run.folder):
            raise SettingsError.of(
                f"the run in {run.folder} is still going",
                value=word,
                where=_where(words),
                allowed="runs that have ended",
                hint=f"wait for its end; {PROGRAM} watch {run.folder}",
            )
        sides.append(Side(word, run, run.folder))
    a, b = sides
    families = []
    for side in sides:
        families.append(side.checkpoint(_END).facts["settings"]["model.family"])
    if families[0] != families[1]:
        raise SettingsError.of(
            f"{a.name} is a run of {families[0]} and {b.name} one of {families[1]}",
            key="model.family",
            value=families[1],
            where=_where(words),
            allowed=f"two runs of {families[0]}, or two of {families[1]}",
            hint=f"{PROGRAM} list runs",
        )
    return a, b


def _sentence(difference: RecordDifference, sides: Sequence[Side]) -> str:
    places = []
    for side in sides:
        origin = side.origin(difference.key) if difference.has_origin else None
        places.append(side.name if origin is None else f"{side.name} ({origin})")
    return difference.describe(*places)


class _Search:
    """The search for the first difference of two runs, and for its cause."""

    def __init__(
        self,
        sides: tuple[Side, Side],
        ends: tuple[Checkpoint, Checkpoint],
        differing: Sequence[RecordDifference],
        equal: int,
        step: int,
        visible: Difference,
        announce: Callable[[str], None],
    ) -> None:
        """`equal`: the last checkpoint that is equal, 0: none; `visible`: the difference at `step`
        of the logged lines or checkpoints."""
        self._sides = sides
        self._ends = ends
        self._differing = differing
        self.start = equal
        self._step = step
        self._visible = visible
        self._announce = announce
        self._notes: list[str] = []
        self.is_replayed = False

    def run(self, home: Path) -> tuple[FirstDifference, Cause, bool, Sequence[str]]:
        """The first difference, its cause, whether it is rounding, and notes."""
        self._announce(
            f"replaying steps {self.start} to {self._step} of both; their folders are not changed"
        )
        replayed = _Replayed()
        try:
            for number, side in enumerate(self._sides):
                self._replay(side, self._ends[number], self.start, home / str(number), replayed)
            self.is_replayed = True
        except (SettingsError, RerunFailed) as error:
            stopped = (exit_codes.INTERRUPTED, exit_codes.RUN_AGAIN)
            if getattr(error, "code", None) in stopped:
                raise
            self._notes.append(f"not replayed: {error}".replace("\n", " "))
            first = self._logged()
            return first, self._recorded(LINE), False, self._notes

        from gearshift.training.trace_comparison import compare_traces

        tolerance = self._tolerance()
        traces = compare_traces(*replayed.traces, tolerance, same_split=self._has_same_split())
        if traces.first is not None:
            first = _first(traces.first)
            cause = self._recorded(first.kind, except_rounding=tolerance is not None)
            if cause.kind == UNKNOWN and not all(replayed.is_reproduced):
                cause = self._unset(first, replayed)
            return first, cause, False, self._notes
        if traces.rounding is not None:
            first = _first(traces.rounding)
            return first, self._recorded(first.kind), True, self._notes
        return self._lost(home, replayed)

    def _replay(
        self, side: Side, end: Checkpoint, start: int, trace: Path, replayed: _Replayed
    ) -> None:
        """Replay a run from the checkpoint of step `start`, 0: its start, to the step."""
        from gearshift.launcher.saved_runs import records
        from gearshift.training.checkpoint import compare, reader
        from gearshift.training.checkpoint.resume_point import changed_data

        trace.mkdir()
        resolved = resolved_as(saved_model.model_of(side.run, end), end.manifest, CliArgs())
        reset, changes = changes_between(side.reader, end.manifest, start, self._step)
        self._notes += [f"{side.name}: {change}" for change in changes]
        plan = RunPlan(
            resolved,
            ResumeRequest(side.folder, step=start or None, reset=reset, until=self._step),
            experience=experience.spec_at(side.folder, start, self._step),
            trace=trace,
        )
        source = side.run.checkpoints.get(start)
        with rerun(plan, source, "replay", records.threads(end)) as ended:
            assert ended.folder is not None
            lines = compare.compare_metrics(
                side.reader.metrics(), RunReader(ended.folder).metrics(), start, self._step
            )
            name = manifest.step_folder(self._step)
            again = reader.open_checkpoint(ended.folder / retention.CHECKPOINTS / name)
            change = changed_data(end.facts.get("data", {}), again.facts.get("data", {}))
            if change is not None:
                raise RerunFailed(f"the data of {side.name} has changed: {change}")
            state = None
            if self._step in side.run.checkpoints:
                state = compare.compare(side.checkpoint(self._step), again).first
        replayed.is_reproduced.append(lines.first is None and state is None)
        replayed.state.append(state)
        replayed.traces.append(trace)

    def _has_same_split(self) -> bool:
        splits = []
        for end in self._ends:
            settings = end.facts["settings"]
            splits.append((end.manifest.world_size, settings["train.micro_batch"]))
        return splits[0] == splits[1]

    def _tolerance(self) -> Tolerance | None:
        """The bound of rounding, if anything that changes the order of sums differs."""
        from gearshift.launcher.saved_runs import records

        if not {each.kind for each in self._differing}.intersection(records.OF_SURROUNDINGS):
            return None
        precisions = [str(end.facts["settings"]["precision"]) for end in self._ends]
        return tolerance_of(max(precisions, key=lambda name: name != "fp32"))

    def _recorded(self, kind: str, *, except_rounding: bool = False) -> Cause:
        """The recorded difference that explains a first difference of `kind`.

        `except_rounding`: what changes the order of sums comes last.
        """
        from gearshift.launcher.saved_runs import records

        explains = _EXPLAINED_BY.get(kind, ())
        ranked: list[tuple[bool, int, RecordDifference]] = []
        for each in self._differing:
            for rank, prefix in enumerate(explains):
                if f"{each.kind} {each.key}".startswith(prefix):
                    is_late = except_rounding and each.kind in records.OF_SURROUNDINGS
                    ranked.append((is_late, rank, each))
                    break
        if not ranked:
            sentence = "no recorded difference explains it"
            return Cause(UNKNOWN, "", sentence)
        ranked.sort(key=lambda entry: entry[:2])
        _, _, chosen = ranked[0]
        for _, _, other in ranked[1:]:
            self._notes.append(f"also: {_sentence(other, self._sides)}")
        return self._of_record(chosen)

    def _of_record(self, chosen: RecordDifference) -> Cause:
        origins: tuple[str | None, str | None] = (None, None)
        if chosen.has_origin:
            a, b = self._sides
            origins = (a.origin(chosen.key), b.origin(chosen.key))
        return Cause(
            chosen.kind,
            chosen.key,
            _sentence(chosen, self._sides),
            chosen.a,
            chosen.b,
            origins,
        )

    def _unset(self, first: FirstDifference, replayed: _Replayed) -> Cause:
        names = []
        for side, is_reproduced in zip(self._sides, replayed.is_reproduced, strict=True):
            if not is_reproduced:
                names.append(side.name)
        sentence = (
            f"neither seed, settings nor data set the {first.place}: "
            f"a replay of {' and of '.join(names)} gives another value"
        )
        return Cause(UNSET, first.name, sentence)

    def _lost(
        self, home: Path, replayed: _Replayed
    ) -> tuple[FirstDifference, Cause, bool, Sequence[str]]:
        """The cause where replays are equal, and so not as the runs were."""
        from gearshift.launcher.saved_runs import records

        logged = self._logged()
        if all(replayed.is_reproduced):  # an evaluation, of which a replay takes no part
            return logged, self._recorded(EVALUATION), False, self._notes
        for each in self._differing:
            if each.kind in records.NOT_REPLAYED:
                sentence = f"{_sentence(each, self._sides)}; the replays here are equal"
                cause = Cause(each.kind, each.key, sentence, each.a, each.b)
                return logged, cause, False, self._notes

        for side, state in zip(self._sides, replayed.state, strict=True):
            if state is None:
                continue
            kind = state.kind if state.kind in ("weight", "buffer") else "optimizer"
            name = state.name if kind != "optimizer" else f"{state.kind} of {state.name}"
            first = FirstDifference(self._step, kind, name, state.index, state.first, state.second)
            path = side.run.checkpoints[self._step]
            sentence = f"{path} is not what its run computes: it was changed, or on another machine"
            return first, Cause(STATE, str(path), sentence), False, self._notes

        resumed = list(self._resumed())
        if not resumed:
            sentence = "replays of both are equal: nothing recorded explains the difference"
            return logged, Cause(UNKNOWN, "", sentence), False, self._notes
        side, at = resumed[0]
        sentence = f"{side.name} was resumed at step {at}, and lost what no checkpoint has"
        unbroken = self._unbroken(home, replayed)
        if unbroken is not None:
            sentence += f": {unbroken.place}"
        return unbroken or logged, Cause(RESUME, str(at), sentence), False, self._notes

    def _resumed(self) -> Iterator[tuple[Side, int]]:
        """The runs that were resumed before the step, and where."""
        for side in self._sides:
            for event in side.reader.events():
                if event["kind"] == "resumed" and self.start <= event["step"] < self._step:
                    yield side, event["step"]

    def _unbroken(self, home: Path, replayed: _Replayed) -> FirstDifference | None:
        """What differs first between a resumed replay and one from the start of a run.

        The run is one that the resumed replay does not reproduce.
        """
        from gearshift.training.trace_comparison import compare_traces

        number = replayed.is_reproduced.index(False)
        whole = _Replayed()
        try:
            self._replay(self._sides[number], self._ends[number], 0, home / "unbroken", whole)
        except (SettingsError, RerunFailed) as error:
            self._notes.append(f"not replayed from its start: {error}")
            return None
        traces = [*whole.traces, replayed.traces[1 - number]]
        if number == 1:
            traces.reverse()
        difference = compare_traces(*traces, None, after=self.start, same_split=True).first
        return None if difference is None else _first(difference)

    def _logged(self) -> FirstDifference:
        """The difference that lines or checkpoints show, where a replay shows nothing."""
        kind = EVALUATION if self._visible.kind == "eval" else LINE
        return FirstDifference(
            self._step,
            kind,
            self._visible.name,
            self._visible.index,
            self._visible.first,
            self._visible.second,
        )


def _first(difference: TraceDifference) -> FirstDifference:
    relative = difference.relative
    if relative is not None and math.isinf(relative):
        relative = None
    return FirstDifference(
        difference.step,
        difference.kind,
        difference.name,
        difference.index,
        difference.a,
        difference.b,
        relative,
    )


def render(result: Comparison) -> str:
    """The result as text."""
    lines = []
    first = result.first
    if first is None:
        tensors = f"{result.tensors} tensors of {counted(result.checkpoints, 'checkpoint')}"
        lines.append(f"equal, bit by bit: {tensors}, {counted(result.lines, 'logged line')}")
    else:
        assert result.cause is not None
        word = "different, by rounding" if result.is_rounding else "different"
        lines.append(f"{word}: first in step {first.step}, {first.place}")
        lines.append(f"  cause     {result.cause.sentence}")
        lines.append(f"  visible   {result.logged}")
        if result.start is not None:
            begin = f"step {result.start}, equal in both" if result.start else "the start"
            lines.append(f"  replays   of both from {begin}")
    if result.excluded:
        lines.append(f"  excluded  {', '.join(result.excluded)}: equal in both")
    lines += [f"  note      {note}" for note in result.notes]
    return "\n".join(lines)


def as_json(result: Comparison) -> dict[str, Any]:
    """The result for programs."""
    return {
        "identical": result.is_identical,
        "first_difference": result.first and asdict(result.first),
        "cause": result.cause and asdict(result.cause),
        "excluded": list(result.excluded),
        "rounding": result.is_rounding,
        "visible": result.logged,
        "from_step": result.start,
        "lines": result.lines,
        "checkpoints": result.checkpoints,
        "tensors": result.tensors,
        "notes": list(result.notes),
        "error": None,
    }
