"""Why two runs differ: their records, the first step that differs, and what differs first in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM, SettingsError, plain
from gearshift.launcher.base.temporary import temporary_folder
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.render import ORIGINS
from gearshift.launcher.run import affinity, experience
from gearshift.launcher.run_folder import lock
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.launcher.saved_runs import saved_model, verify
from gearshift.launcher.saved_runs.rerun import RerunFailed, rerun, resolved_as
from gearshift.launcher.saved_runs.saved_model import find_saved
from gearshift.training.callbacks.base import Facts
from gearshift.training.checkpoint import manifest, retention

if TYPE_CHECKING:
    from gearshift.training.checkpoint.compare import Difference
    from gearshift.training.checkpoint.reader import Checkpoint

_TABLE: Mapping[str, Sequence[str]] = json.loads(
    Path(__file__).with_suffix(".json").read_text("utf-8")
)
"""By what differs first: the kinds, or kinds and keys, of records that can be the cause, likely
ones first; "inert": settings that change no number of a step; "order of sums": records that change
the last bits of all that is computed; "not replayed": those of here instead of the run's."""
_OF_SUMS = "order of sums"
_OF_DATA = ("samples", "fingerprint", "validation")
_END = 2**53
"""After the last step of any run."""
FAILURE: Mapping[str, Any] = {
    "identical": False,
    "first_difference": None,
    "cause": None,
    "excluded": [],
    "rounding": False,
    "visible": None,
    "from_step": None,
    "lines": 0,
    "tensors": 0,
    "notes": [],
    "error": None,
}
"""The result for programs if nothing could be compared."""


@dataclass(frozen=True)
class Cause:
    """What made two runs differ, or a record that differs."""

    kind: str
    """A kind of record; "state": a checkpoint was changed; "resume": what no checkpoint has was
    lost; "unset": neither seed, settings nor data set it; "unknown"."""
    key: str
    sentence: str = ""
    a: Any = None
    b: Any = None
    origins: Sequence[str | None] = (None, None)


class Side:
    """One of two runs to compare, and what its replay leaves. Only reads it."""

    def __init__(self, word: str, sets: Sequence[str]) -> None:
        """Raises SettingsError if `word` names no run with a checkpoint."""
        self.saved = find_saved(word, "verify", sets, needs_folder=True)
        assert self.saved.folder is not None
        self.folder = self.saved.folder
        self.reader = RunReader(self.folder)
        self.steps = self.saved.checkpoints
        self.trace = Path()
        self.again: Checkpoint | None = None
        """The last checkpoint of its replay."""
        self.change: Difference | None = None
        """How the run differs from its replay."""

    def at(self, step: int) -> Checkpoint:
        """Its first checkpoint of `step` or later, or else the last one."""
        from gearshift.training.checkpoint.reader import open_checkpoint

        later = [number for number in self.steps if number >= step]
        return open_checkpoint(self.steps[min(later, default=max(self.steps))])

    def origin(self, key: str) -> str | None:
        """Where its value of a setting comes from; None: it is no setting."""
        return (self.reader.object(ORIGINS) or {}).get(key, {}).get("origin")

    def replay(self, start: int, step: int, folders: ExitStack) -> list[str]:
        """Train from the checkpoint of step `start`, 0: from its start, to `step`; gives notes.

        Its results are there as long as `folders`. Raises SettingsError, RerunFailed.
        """
        from gearshift.training.checkpoint import compare, reader, resume_point

        end = self.at(step)
        self.trace = folders.enter_context(temporary_folder("gearshift-trace-"))
        reset, changes = verify.changes_between(self.reader, end.manifest, start, step)
        plan = RunPlan(
            resolved_as(saved_model.model_of(self.saved, end), end.manifest, CliArgs()),
            ResumeRequest(self.folder, step=start or None, reset=reset, until=step),
            experience=experience.spec_at(self.folder, start, step),
            trace=self.trace,
        )
        threads = records(end).get(("threads", "threads"))
        ended = folders.enter_context(rerun(plan, self.steps.get(start), "replay", threads))
        assert ended.folder is not None
        name = manifest.step_folder(step)
        self.again = reader.open_checkpoint(ended.folder / retention.CHECKPOINTS / name)
        change = resume_point.changed_data(end.facts["data"], self.again.facts["data"])
        if change is not None:
            raise RerunFailed(f"the data of {self.folder} has changed: {change}")
        metrics = RunReader(ended.folder).metrics()
        self.change = compare.compare_metrics(self.reader.metrics(), metrics, start, step).first
        if step in self.steps:
            state = compare.compare(end, self.again).first
            if state is not None:
                self.change = replace(state, step=step)
        return [f"{self.folder}: {change}" for change in changes]


def records(checkpoint: Checkpoint) -> dict[tuple[str, str], Any]:
    """What a checkpoint tells of how it was trained, by kind and key."""
    from gearshift.launcher.run.surroundings import FACT

    facts = checkpoint.facts
    written = checkpoint.manifest
    data = {**facts["data"]}
    kinds = {
        "data": {**(data["files"] or {}), **{key: data[key] for key in _OF_DATA}},
        "package": written.libraries,
        "engine": {"engine.name": written.engine, "engine.nproc": written.world_size},
    }
    found = {}
    for key, value in facts["settings"].items():
        if not key.startswith(tuple(_TABLE["inert"])):
            found["seed" if key.endswith("seed") else "setting", key] = value
    for kind, entries in [*kinds.items(), *facts.get(FACT, {}).items()]:
        found.update({(kind, key): value for key, value in entries.items()})
    return found


def compare_runs(words: Sequence[str], args: CliArgs, announce: Callable[[str], None]) -> Facts:
    """Compare two runs, and if they differ find why, by replays of both in temporary folders.

    Only reads them. `args` may name new folders of what they read; `announce` gets a line before
    the replays. Raises SettingsError, CheckpointError, RerunFailed.
    """
    affinity.limit_spinning(environment.variables())  # before torch is imported
    from gearshift.training.checkpoint import compare

    a, b = sides = [Side(word, args.sets) for word in words]
    _check(sides, words, args)
    lines = compare.compare_metrics(a.reader.metrics(), b.reader.metrics(), 0, _END)
    visible = lines.first
    step = _END if visible is None else visible.step or 0
    start = 0
    tensors = 0
    for number in sorted(a.steps.keys() & b.steps.keys()):
        state = compare.compare(a.at(number), b.at(number))
        tensors += state.tensors
        if state.first is None and number < step:
            start = number
        elif state.first is not None and number < step:  # a line is of the state before its step
            step = number
            visible = replace(state.first, step=step)
    facts = {**FAILURE, "lines": lines.lines, "tensors": tensors}
    if not lines.lines and not tensors:
        raise _error(words, "they have no logged line and no checkpoint of the same step")

    mine, theirs = records(a.at(step)), records(b.at(step))
    differing = []
    for kind, key in {**mine, **theirs}:
        values = mine.get((kind, key)), theirs.get((kind, key))
        is_loaded_by_one = kind in _TABLE["not replayed"] and None in values
        if values[0] != values[1] and not is_loaded_by_one:
            differing.append(_described(Cause(kind, key, "", *values), sides))
    differing_kinds = {record.kind for record in differing}
    kinds = {kind for kind, _ in mine.keys() & theirs.keys()}
    facts["excluded"] = sorted(kinds - differing_kinds)
    if visible is None:
        notes = [f"{record.sentence}, which changes nothing" for record in differing]
        return {**facts, "identical": True, "notes": notes}
    announce(f"replaying steps {start} to {step} of both; their folders are not changed")
    facts["visible"] = asdict(visible)
    return {**facts, **_Search(sides, differing, start, step, visible).result()}


def _error(words: Sequence[str], message: str, fix: str | None = None) -> SettingsError:
    a, b = words
    return SettingsError.of(
        f"{a} and {b} cannot be compared: {message}",
        where=f"the command line: verify {a} --against {b}",
        allowed="two runs of one family, which have ended",
        fix=fix,
    )


def _check(sides: Sequence[Side], words: Sequence[str], args: CliArgs) -> None:
    """Raise SettingsError if the runs cannot be compared."""
    if args.engine or args.options:
        fix = f"{PROGRAM} verify {words[0]} --against {words[1]}"
        raise _error(words, "each is replayed as it was, without other options", fix)
    for side in sides:
        if lock.is_held(side.folder):
            fix = f"{PROGRAM} watch {side.folder}"
            raise _error(words, f"{side.folder} is still going", fix)
    families = {side.at(_END).facts["settings"]["model.family"] for side in sides}
    if len(families) > 1:
        raise _error(words, f"they are of {' and '.join(sorted(families))}", f"{PROGRAM} list runs")


def _described(record: Cause, sides: Sequence[Side]) -> Cause:
    """The `record` with origins, and a sentence."""
    origins = [side.origin(record.key) for side in sides]
    noun = record.key if origins[0] else f"{record.kind} {record.key}"
    places = []
    values = (record.a, record.b)
    for side, value, origin in zip(sides, values, origins, strict=True):
        suffix = f" ({origin})" if origin else ""
        places.append(f"{plain(value)} in {side.folder}{suffix}")
    return replace(record, sentence=f"{noun} is {' and '.join(places)}", origins=origins)


@dataclass(frozen=True)
class _Search:
    """The search for the first difference of two runs, and for its cause."""

    sides: Sequence[Side]
    differing: Sequence[Cause]
    """Records."""
    start: int
    """The step to replay from."""
    step: int
    visible: Difference
    """What lines or checkpoints of `step` show."""

    def result(self) -> Facts:
        """The first difference and its cause."""
        notes: list[str] = []
        facts: Facts = {"from_step": self.start}
        with ExitStack() as folders:
            try:
                for side in self.sides:
                    notes += side.replay(self.start, self.step, folders)
                facts = {**facts, **self._compared(folders)}
            except (SettingsError, RerunFailed) as error:
                if getattr(error, "code", 0) > exit_codes.INVALID_INPUT:
                    raise  # it was stopped
                notes.append(f"not replayed: {error}".replace("\n", " "))
                facts = self._explained(self.visible, is_small=False)
        return {**facts, "notes": notes}

    def _compared(self, folders: ExitStack) -> Facts:
        """What the replays show first."""
        from gearshift.training import trace
        from gearshift.training.checkpoint import compare

        a, b = self.sides
        assert a.again is not None and b.again is not None
        splits = []
        precision = "fp32"
        for again in (a.again, b.again):
            settings = again.facts["settings"]
            written = again.manifest
            splits.append((written.engine, written.world_size, settings["train.micro_batch"]))
            precision = max(precision, settings["precision"], key=lambda name: name != "fp32")
        first = trace.first_difference(
            a.trace, b.trace, self.start, same_split=splits[0] == splits[1]
        )
        # Within its bound, another order of sums explains a difference.
        beyond = compare.compare(a.again, b.again, verify.tolerance_of(precision)).first
        if first is None:
            state = beyond or compare.compare(a.again, b.again).first
            first = state and replace(state, step=self.step)
        if first is None:
            return self._lost(folders)
        return self._explained(first, is_small=beyond is None)

    def _explained(self, first: Difference, *, is_small: bool) -> Facts:
        """The recorded difference that explains the `first` one best.

        Unless it `is_small`, what changes the order of sums comes last.
        """
        prefixes = _TABLE.get(first.kind, _TABLE["optimizer"])
        best = (2 * _END, Cause("unknown", "", "no recorded difference explains it"), False)
        for record in self.differing:
            is_of_sums = _rank(record, _TABLE[_OF_SUMS]) is not None
            rank = _rank(record, [*prefixes, *_TABLE[_OF_SUMS]])
            if rank is not None and is_of_sums and not is_small:
                rank += _END
            if rank is not None and rank < best[0]:
                best = (rank, record, is_of_sums and is_small)
        _, cause, is_rounding = best
        change = next((side for side in self.sides if side.change is not None), None)
        if cause.kind == "unknown" and change is not None:
            sentence = f"neither seed, settings nor data set the {first.place}: "
            sentence += f"a replay of {change.folder} gives another value"
            cause = Cause("unset", first.name, sentence)
        return _facts(first, cause, is_rounding)

    def _lost(self, folders: ExitStack) -> Facts:
        """What is known where replays are equal, and so not as the runs were."""
        for record in self.differing:
            if record.kind in _TABLE["not replayed"]:
                return _facts(self.visible, record)
        for side, other in (self.sides, self.sides[::-1]):
            if side.change is None:
                continue
            if side.change.kind not in ("train", "eval"):
                path = str(side.steps[self.step])
                sentence = f"{path} was changed: its run computes something else"
                return _facts(side.change, Cause("state", path, sentence))
            for resumed in self.sides:
                for event in resumed.reader.events():
                    if event["kind"] == "resumed" and self.start <= event["step"] < self.step:
                        return self._resumed(resumed, event["step"], side, other, folders)
        return self._explained(self.visible, is_small=False)

    def _resumed(
        self, resumed: Side, at: int, side: Side, other: Side, folders: ExitStack
    ) -> Facts:
        """What `side`, replayed from its start, has otherwise than the resumed replay."""
        from gearshift.training import trace

        side.replay(0, self.step, folders)
        first = trace.first_difference(side.trace, other.trace, self.start + 1, same_split=True)
        sentence = f"{resumed.folder} was resumed at step {at}, and lost what no checkpoint has"
        return _facts(first or self.visible, Cause("resume", str(at), sentence))


def _facts(first: Difference, cause: Cause, is_rounding: bool = False) -> Facts:
    return {"first_difference": asdict(first), "cause": asdict(cause), "rounding": is_rounding}


def _rank(record: Cause, prefixes: Sequence[str]) -> int | None:
    """The first of `prefixes` that a record has; None: it has none."""
    for rank, prefix in enumerate(prefixes):
        if f"{record.kind} {record.key}".startswith(prefix):
            return rank
    return None


def render(facts: Facts) -> str:
    """The result as text."""
    lines = [f"equal, bit by bit: {facts['tensors']} tensors, {facts['lines']} logged lines"]
    if not facts["identical"]:
        first = facts["first_difference"]
        bound = ", within the bound of rounding" if facts["rounding"] else ""
        lines = [f"different from step {first['step']} on: {first['kind']} {first['name']}{bound}"]
        lines.append(f"  cause     {facts['cause']['sentence']}")
    if facts["excluded"]:
        lines.append(f"  excluded  {', '.join(facts['excluded'])}: equal")
    lines += [f"  note      {note}" for note in facts["notes"]]
    return "\n".join(lines)
