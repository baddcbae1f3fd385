"""Why two runs differ: their records, the first step that differs, and what differs first in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import SettingsError, plain, program_line
from gearshift.launcher.base.temporary import temporary_folder
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.render import ORIGINS
from gearshift.launcher.run import experience
from gearshift.launcher.run_folder import lock
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.run_folder.run_folder import SURROUNDINGS
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.launcher.saved_runs import saved_model, verify
from gearshift.launcher.saved_runs.rerun import rerun, resolved_as
from gearshift.launcher.saved_runs.saved_model import find_saved
from gearshift.training.callbacks.base import Facts
from gearshift.training.checkpoint import retention

if TYPE_CHECKING:
    from gearshift.launcher.saved_runs.differences import Difference
    from gearshift.training.checkpoint.reader import Checkpoint

_TABLE: Mapping[str, Sequence[str]] = json.loads(
    Path(__file__).with_suffix(".json").read_text("utf-8")
)
"""By what differs first: the kinds, or kinds and keys, of records that can be the cause, likely
ones first; "order of sums": records that change the last bits of all that is computed, the least
likely ones; "inert": settings that change no number of a step; "not replayed": the kinds that a
replay has from here."""
_SUMS = _TABLE["order of sums"]
_SPLIT = {"engine.name", "engine.nproc", "train.micro_batch"}
"""Settings that divide a batch otherwise."""
_END = 2**53
"""After the last step of any run."""
FAILURE: Facts = {"identical": False, "first_difference": None, "cause": None, "rounding": False}
"""The result for programs if nothing could be compared."""


@dataclass(frozen=True)
class Cause:
    """What made two runs differ, or a record that differs."""

    kind: str
    """A kind of record; "state": a checkpoint was changed; "resume": what no checkpoint has was
    lost; "unset": neither seed, settings nor data set it; "unknown"."""
    key: str
    sentence: str
    a: Any = None
    b: Any = None
    origins: Sequence[str | None] = (None, None)


class Side:
    """One of two runs to compare, and what its replay leaves. Only reads it."""

    def __init__(self, word: str, args: CliArgs) -> None:
        """Raises SettingsError if `word` names no run with a checkpoint."""
        self._args = args
        self._saved = find_saved(word, "verify", args.sets)
        self.folder = self._saved.folder
        self.reader = RunReader(self.folder)
        self.origins = self.reader.object(ORIGINS) or {}
        self.steps = self._saved.checkpoints
        self.trace = Path()
        self.change: Difference | None = None  # from its replay

    def at(self, step: int) -> Checkpoint:
        """Its first checkpoint of `step` or later, or else the last one."""
        from gearshift.training.checkpoint.reader import open_checkpoint

        later = [number for number in self.steps if number >= step]
        return open_checkpoint(self.steps[min(later, default=max(self.steps))])

    def records(self, step: int) -> dict[tuple[str, str], Any]:
        """By kind and key, what the checkpoint at `step` tells of how it was trained."""
        facts = self.at(step).facts
        data = facts["data"]
        kinds = {
            "setting": facts["settings"],
            "data": {**(data["files"] or {}), **data},
            "measured": {key: facts.get(key) for key in ("fits", "shares")},
        }
        records = {}
        for kind, entries in {**kinds, **facts.get(SURROUNDINGS, {})}.items():
            for key, value in entries.items():
                # None: nothing measures it; empty: not yet.
                is_known = kind != "measured" or value is not None
                if is_known and not f"{kind} {key}".startswith(tuple(_TABLE["inert"])):
                    records["seed" if key.endswith("seed") else kind, key] = value
        return records

    def replay(self, start: int, step: int, folders: ExitStack) -> Checkpoint:
        """Train from the checkpoint of step `start`, 0: from its start, to `step`.

        Its results are there as long as `folders`. Raises SettingsError, CommandFailed.
        """
        from gearshift.launcher.saved_runs import differences
        from gearshift.training.checkpoint import reader

        end = self.at(step)
        self.trace = folders.enter_context(temporary_folder("gearshift-trace-"))
        reset, _ = verify.changes_between(self.reader, end.manifest, start, step)
        plan = RunPlan(
            resolved_as(saved_model.model_of(self._saved, end), end.manifest, self._args),
            verify.request(self.folder, end, start or None, reset, step),
            experience=experience.spec_at(self.folder, start, step),
            trace=self.trace,
        )
        threads = self.records(step).get(("threads", "threads"))
        ended = folders.enter_context(rerun(plan, self.steps.get(start), "replay", threads))
        assert ended.folder is not None
        metrics = RunReader(ended.folder).metrics()
        self.change = differences.compare_metrics(self.reader.metrics(), metrics, start, step).first
        again = reader.open_checkpoint(ended.folder / retention.LAST)
        state = differences.compare(end, again).first if step in self.steps else None
        if state is not None:
            self.change = replace(state, step=step)
        return again


def compare_runs(words: Sequence[str], args: CliArgs, announce: Callable[[str], None]) -> Facts:
    """Compare two runs, and if they differ find why, by replays of both in temporary folders.

    Only reads them. `args`: engine, processes and data of the replays; by default those of each
    run. `announce` gets a line before the replays. Raises SettingsError, CheckpointError,
    CommandFailed.
    """
    environment.limit_spinning()  # before torch is imported
    from gearshift.launcher.saved_runs import differences

    a, b = sides = [Side(word, args) for word in words]
    problem = None
    families = [side.at(_END).facts["settings"]["model.family"] for side in sides]
    lines = differences.compare_metrics(a.reader.metrics(), b.reader.metrics(), 0, _END)
    common = sorted(a.steps.keys() & b.steps.keys())
    if families[0] != families[1]:
        problem = f"they are of {' and '.join(families)}"
    elif not lines.lines and not common:
        problem = "no step of both was logged or saved"
    for side in sides:
        if lock.is_held(side.folder):
            problem = f"{side.folder} is still going, see  {program_line('watch', side.folder)}"
    if problem is not None:
        raise SettingsError.of(
            f"{' and '.join(words)} cannot be compared: {problem}",
            where=f"the command line: verify {' --against '.join(words)}",
            allowed="two runs of one family, which have ended",
        )

    visible = lines.first
    step = _END
    if visible is not None:
        step = visible.step or 0
    start = 0
    for number in common:
        if number >= step:  # a line is of the state before its step
            break
        state = differences.compare(a.at(number), b.at(number)).first
        if state is None:
            start = number
        else:
            step = number
            visible = replace(state, step=step)

    mine = a.records(step)
    theirs = b.records(step)
    differing = []
    equal = set()
    for place in mine:
        if mine[place] == theirs.get(place):
            equal.add(place[0])
        elif place in theirs:
            differing.append(_record(*place, (mine[place], theirs[place]), sides))
    facts = {
        **FAILURE,
        "error": None,
        "identical": visible is None,
        "excluded": sorted(equal - {record.kind for record in differing}),
        "lines": lines.lines,
        "checkpoints": len(common),
        "notes": [record.sentence for record in differing],
    }
    if visible is None:
        return facts
    announce(f"replaying steps {start} to {step} of both; their folders are not changed")
    facts |= {"visible": asdict(visible), "from_step": start}
    return {**facts, **_Search(sides, differing, start, step, visible).result()}


def _record(kind: str, key: str, values: Sequence[Any], sides: Sequence[Side]) -> Cause:
    """A record that differs, with the origins of its values."""
    origins = [side.origins.get(key, {}).get("origin") for side in sides]
    texts = [
        f"{plain(value)} in {side.folder} ({origin or kind})"
        for value, side, origin in zip(values, sides, origins, strict=True)
    ]
    a, b = values
    return Cause(kind, key, f"{key} is {' and '.join(texts)}", a, b, origins)


@dataclass(frozen=True)
class _Search:
    """The search for the first difference of two runs, and for its cause."""

    sides: Sequence[Side]
    differing: Sequence[Cause]  # records
    start: int  # where replays begin
    step: int
    visible: Difference  # in the lines or checkpoints of the step

    def result(self) -> Facts:
        """The first difference and its cause."""
        with ExitStack() as folders:
            try:
                a, b = (side.replay(self.start, self.step, folders) for side in self.sides)
                return self._compared(a, b, folders)
            except SettingsError as error:  # such as data that is gone or has changed
                notes = [f"not replayed: {error}"]
                return {**self._explained(self.visible), "notes": notes, "from_step": None}

    def _compared(self, a: Checkpoint, b: Checkpoint, folders: ExitStack) -> Facts:
        """What the replays, which end with `a` and `b`, show first."""
        from gearshift.launcher.saved_runs import differences

        same_split = _SPLIT.isdisjoint(record.key for record in self.differing)
        same_split &= a.facts["shares"] == b.facts["shares"]
        first = differences.first_difference(
            self.sides[0].trace, self.sides[1].trace, self.start, same_split=same_split
        )
        if first is None and same_split:
            return self._lost(folders)
        # Within its bound, another order of sums explains a difference.
        tolerance = verify.tolerance_of(a.facts["settings"]["precision"])
        beyond = differences.compare(a, b, tolerance).first
        if first is None and beyond is not None:
            first = replace(beyond, step=self.step)
        return self._explained(first or self.visible, is_small=beyond is None)

    def _explained(self, first: Difference, *, is_small: bool = False) -> Facts:
        """The `first` difference, and the recorded one that explains it best."""
        for prefix in (*_TABLE.get(first.kind, _TABLE["optimizer"]), *_SUMS):
            for record in self.differing:
                if f"{record.kind} {record.key}".startswith(prefix):
                    return _facts(first, record, is_small and prefix in _SUMS)
        for side in self.sides:
            if side.change is not None:
                sentence = f"neither seed, settings nor data set the {first.place}: a replay of "
                sentence += f"{side.folder} gives another value"
                return _facts(first, Cause("unset", first.name, sentence))
        return _facts(first, Cause("unknown", "", "no recorded difference explains it"))

    def _lost(self, folders: ExitStack) -> Facts:
        """What is known where replays are equal, and so not as the runs were."""
        from gearshift.launcher.saved_runs import differences

        for kind in _TABLE["not replayed"]:
            for record in self.differing:
                if record.kind == kind:
                    return _facts(self.visible, record)
        for side, other in (self.sides, self.sides[::-1]):
            if side.change is None:
                continue
            if side.change.kind not in ("train", "eval"):
                path = str(side.steps[self.step])
                sentence = f"{path} was changed: its run computes something else"
                return _facts(side.change, Cause("state", path, sentence))
            side.replay(0, self.step, folders)  # as if it had not stopped
            first = differences.first_difference(
                side.trace, other.trace, self.start + 1, same_split=True
            )
            if first is not None:
                sentence = f"a resume at step {self.start} loses what no checkpoint has"
                return _facts(first, Cause("resume", str(self.start), sentence))
        return self._explained(self.visible)


def _facts(first: Difference, cause: Cause, is_rounding: bool = False) -> Facts:
    return {"first_difference": asdict(first), "cause": asdict(cause), "rounding": is_rounding}


def render(facts: Facts) -> str:
    """The result as text."""
    first = facts["first_difference"]
    text = "equal, bit by bit"
    if first is not None:
        bound = ", within the bound of rounding" if facts["rounding"] else ""
        text = f"different from step {first['step']} on: {first['kind']} {first['name']}{bound}"
        text += f"\n  cause     {facts['cause']['sentence']}"
    text += f"\n  equal     {', '.join(facts['excluded'])}"
    text += f"\n  compared  {facts['lines']} logged lines, {facts['checkpoints']} checkpoints"
    return "\n  differs   ".join([text, *facts["notes"]])
