"""How far is the predicted peak of a step from that of real training?

    python -m benchmarks.plan_error                       # every case, an hour
    python -m benchmarks.plan_error --families language --engines local fsdp --kinds bf16

A part of the cases keeps the other rows of the JSON file. After changes of launcher/plan,
`--predict-only` predicts the rows of that file again, which takes seconds a row.

Ranks run as in a run, without a console: the data, the model, the engine and the loop, up to the
end of the third step. Measured are the bytes that torch's allocator has handed out since the model
was built, with the micro-batches that are held, on the rank with the most, at the highest point of
steps 2 and 3 and of computing the feature cache: evaluations, saving and previews are between
steps. The allocator also sees what a
dispatch mode does not: buckets that DDP allocates in C++, compiled code, and workspaces, which are
memory that a kernel takes and gives back within one call. No tensor lives there, and their size
depends on the processor: they do not count, and the column "with workspaces" has the peak with
them. What gloo takes for its own copies does not count, as other backends copy nothing there.
Threads of collectives may free memory late, which only adds: of a case that is more than 3 % off,
the lowest peak of three runs counts.

Planned is the largest micro-batch of these two steps. The command `plan` looks at the first eight
of a run; later ones may be larger or smaller.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from benchmarks import isolated, lora
from benchmarks.figures import command, joined, listed, load_rows, machine, markdown, save_rows
from gearshift.engines.catalog import ENGINES
from gearshift.launcher.config import presets
from gearshift.launcher.config.machine import Machine, detect_machine
from gearshift.launcher.config.provenance import CliArgs, Resolved
from gearshift.launcher.config.resolve import resolve
from gearshift.launcher.plan import plan as planning
from gearshift.launcher.plan.plan import Plan, plan_run
from gearshift.launcher.plan.target import Described
from gearshift.launcher.run import rank as rank_process
from gearshift.launcher.run.supervisor import save_plan
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.models.base import DataError
from gearshift.models.catalog import FAMILIES
from gearshift.training.data.samples import DataOrder, MicroBatch, Samples
from gearshift.training.train_plan import TrainPlan

STEPS = (2, 3)
TOLERANCE = 0.05
_AGAIN = 0.03
"""A case that is further off is measured three times, and the lowest peak counts."""
_LIMIT_S = 300.0
_MODES = [mode for mode in presets.modes() if mode != "staged"]
"""A staged run is several runs."""
_SMALL_BUCKET = 2**14
_COLLECTIVES = ("gloo:", "c10d::")
"""Names of what torch records of a collective: in a thread of gloo, and where it is called."""
KINDS = ("modes", "crossed", "bf16", "frozen", "nf4", "features", "states", "ranks", "buckets")
"""Modes under local and two ranks under other engines; these in other modes; bf16, also with frozen
layers, and with a base in 4 bits; cached features; moments of 16 and 8 bits; four ranks; small
buckets of DeepSpeed."""
SHOWN = 10  # rows of the table with the largest errors
_NF4 = "model.quantize=nf4"
_CASTS = ("aten::to", "aten::_to_copy", "aten::empty_strided")  # of operands, within kernels
_CHECKPOINTING = "memory.activation_checkpointing"


@dataclass(frozen=True)
class Case:
    """A run that is planned and measured."""

    family: str
    engine: str
    ranks: int = 1
    mode: str = "default"
    sets: tuple[str, ...] = ()
    bucket: int | None = None
    """Elements of a bucket of DeepSpeed; None: as shipped, which is larger than a tiny model."""


@dataclass(frozen=True)
class Row:
    """Predicted and measured peak of the rank with the most, in bytes."""

    family: str
    engine: str
    ranks: int
    mode: str
    sets: Sequence[str]
    bucket: int | None
    predicted: int
    measured: int
    with_workspaces: int
    """As `measured`, and what kernels take for themselves while they run."""
    steps: int

    @property
    def error(self) -> float:
        """By how much the prediction is too high, relative to the measured peak."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Peak:
    """The most bytes at once, on the rank with the most."""

    tensors: int
    with_workspaces: int


class Done(BaseException):
    """Ends the run after the last measured step."""


@dataclass(frozen=True)
class _Change:
    """Bytes that were handed out or given back."""

    time_ns: int
    address: int
    size: int
    """Below zero: given back."""
    kernel_end_ns: int | None = None
    """End of the call of a kernel that took it; None: it was taken elsewhere."""


@dataclass
class _Step:
    """A step of training."""

    begin_ns: int
    batches: Mapping[int, int]
    """Address and bytes of the tensors of its micro-batches, and of those of the next step."""
    end_ns: int = 0


def train(report: isolated.Report, folder: str) -> None:
    """One rank of the job in `folder`; `report` gets the peak in bytes."""
    from gearshift.launcher.run import worker
    from gearshift.training import loop
    from gearshift.training.data import feature_cache
    from gearshift.training.data.loader import Batches
    from gearshift.training.optim.updater import Updater

    job = rank_process.load_plan(Path(folder))
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    steps: list[_Step] = []
    passes: list[_Step] = []
    ahead: dict[int, int] = {}

    def build(*args: Any, **options: Any) -> Any:
        profiler.start()
        return original_build(*args, **options)

    def use_features(*args: Any) -> Any:
        changed = (*args[:-2], replace(args[-2], folder=Path(folder)), args[-1])
        batch = args[0].encoder_inputs("train").batch(range(feature_cache.BATCH))
        passes.append(_Step(time.time_ns(), _storages([MicroBatch(batch, 0)])))
        is_used = original_use(*changed)
        passes[-1].end_ns = time.time_ns()
        return is_used

    def accumulate(*args: Any) -> Any:
        steps.append(_Step(time.time_ns(), {**_storages(args[3]), **ahead}))
        return original_accumulate(*args)

    def take_ahead(*args: Any) -> Any:
        batches = original_ahead(*args)
        ahead.clear()
        ahead.update(_storages(batches))
        return batches

    def take(*args: Any) -> Any:
        update = original_take(*args)
        steps[-1].end_ns = time.time_ns()
        if len(steps) == STEPS[-1]:
            raise Done
        return update

    original_build = worker._build_model
    original_accumulate, original_take = loop.accumulate, Updater.take
    original_ahead, original_use = Batches.ahead, feature_cache.use
    with ExitStack() as patches:
        patches.enter_context(patch.object(worker, "_build_model", build))
        patches.enter_context(patch.object(loop, "accumulate", accumulate))
        patches.enter_context(patch.object(feature_cache, "use", use_features))
        patches.enter_context(patch.object(Batches, "ahead", take_ahead))
        patches.enter_context(patch.object(Updater, "take", take))
        try:
            worker.work(job)
        except Done:
            profiler.stop()
    measured = [*passes, *(steps[number - 1] for number in STEPS)]
    recorded: Any = profiler.profiler
    changes = _changes(recorded.kineto_results.experimental_event_tree())
    peaks = torch.tensor([_peak(_without_workspaces(changes), measured), _peak(changes, measured)])
    if dist.is_initialized():
        dist.all_reduce(peaks, dist.ReduceOp.MAX)
    tensors, with_workspaces = peaks.tolist()
    report({"tensors": tensors, "with_workspaces": with_workspaces})


def _storages(micro_batches: Sequence[Any]) -> dict[int, int]:
    """Address and bytes of the tensors of micro-batches."""
    leaves = tree_leaves([each.batch for each in micro_batches])
    found = [leaf.untyped_storage() for leaf in leaves if isinstance(leaf, Tensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in found}


def _changes(recorded: Iterable[Any]) -> list[_Change]:
    """What was handed out and given back in a tree of events, without the copies of gloo."""
    found = []
    waiting: list[tuple[Any, bool, int | None]] = [(event, False, None) for event in recorded]
    while waiting:
        event, is_copy, kernel_end_ns = waiting.pop()
        kind, fields = event.typed
        if kind == _EventType.Allocation:
            if not (is_copy and fields.alloc_size > 0):
                change = _Change(event.start_time_ns, fields.ptr, fields.alloc_size, kernel_end_ns)
                found.append(change)
            continue
        is_copy |= event.name.startswith(_COLLECTIVES)
        is_kernel = event.name.startswith("aten::") and event.name not in _CASTS
        end_ns = event.end_time_ns if is_kernel else kernel_end_ns
        waiting += [(child, is_copy, end_ns) for child in event.children]
    return sorted(found, key=lambda change: change.time_ns)


def _without_workspaces(changes: Sequence[_Change]) -> list[_Change]:
    """The changes, without the sizes of what a kernel takes and gives back within one call.

    They stay: memory that another thread gave back unseen is known by its address to be free.
    """
    workspaces: set[_Change] = set()
    held: dict[int, _Change] = {}
    for change in changes:
        taken = held.pop(change.address, None)
        if change.size > 0:
            held[change.address] = change
        elif taken and taken.kernel_end_ns and change.time_ns <= taken.kernel_end_ns:
            workspaces |= {taken, change}
    return [replace(change, size=0) if change in workspaces else change for change in changes]


def _peak(changes: Iterable[_Change], steps: Iterable[_Step]) -> int:
    """The most bytes that are handed out at once in `steps`.

    Other threads report nothing: what they give back ends when its address is handed out again, and
    the batches that they read are added.
    """
    sizes: dict[int, int] = {}
    now = peak = 0
    for change in changes:
        now -= sizes.pop(change.address, 0)
        if change.size > 0:
            sizes[change.address] = change.size
            now += change.size
        for step in steps:
            if step.begin_ns <= change.time_ns <= step.end_ns:
                unseen = (n for address, n in step.batches.items() if address not in sizes)
                peak = max(peak, now + sum(unseen))
    return peak


def cases(
    families: Sequence[str] = tuple(FAMILIES),
    engines: Sequence[str] = tuple(ENGINES),
    kinds: Sequence[str] = KINDS,
) -> Iterator[Case]:
    """Every case of these families, engines and kinds."""
    for family in families:
        for kind in kinds:
            yield from (case for engine in engines for case in _cases(kind, family, engine))


def _cases(kind: str, family: str, engine: str) -> Iterator[Case]:
    ranks = 1 if engine == "local" else 2
    if kind == "modes" and engine == "local":
        changes = [f"{_CHECKPOINTING}={recompute}" for recompute in ("full", "selective")]
        yield from (Case(family, engine, mode=mode) for mode in _MODES)
        yield from (Case(family, engine, sets=(change,)) for change in changes)
    elif kind == "modes":
        yield Case(family, engine, ranks)
    elif kind == "crossed" and engine != "local":
        yield from (Case(family, engine, ranks, mode) for mode in _crossed(family, engine))
    elif kind == "bf16" and engine in ("local", "fsdp", "zero2", "zero3"):
        yield Case(family, engine, ranks, sets=("precision=bf16",))
    elif kind == "frozen" and family == "language":
        yield Case(family, engine, ranks, sets=("precision=bf16", "model.freeze_layers=1"))
    elif kind == "nf4" and family == "language" and engine in ("local", "fsdp", "zero2"):
        yield Case(family, engine, ranks, sets=("precision=bf16", "model.lora.rank=8", _NF4))
    elif kind == "features" and family == "eeg_text" and engine in ("local", "fsdp", "zero2"):
        yield Case(family, engine, ranks, sets=("model.freeze_encoder=true",))
    elif kind == "states" and family == "language":
        sets = [(f"optim.state={state}",) for state in ("bf16", "int8")]
        yield from (Case(family, engine, ranks, sets=each) for each in sets)
    elif kind == "ranks" and engine != "local":
        yield Case(family, engine, 4)
    elif kind == "buckets" and engine.startswith("zero"):
        yield Case(family, engine, ranks, bucket=_SMALL_BUCKET)


def _crossed(family: str, engine: str) -> Iterator[str]:
    """Two modes, so that each engine meets each mode in one family or more."""
    others = [mode for mode in _MODES if mode != "default"]
    first = [*FAMILIES].index(family) + [*ENGINES].index(engine)
    for place in (first, first + len(others) // 2):
        yield others[place % len(others)]


def measure(case: Case, here: Machine) -> Row | None:
    """Plan `case` and train it, once or three times; None: a training failed, with a message."""
    with tempfile.TemporaryDirectory(prefix="gearshift-benchmark-") as name:
        resolved = _resolve(case, here, Path(name))
        plan = predicted(resolved, here)
        expected = plan.device_bytes + plan.offloaded_bytes
        peaks = [measured_peak(resolved, case.ranks, _name(case))]
        if peaks[0] is not None and abs(expected / peaks[0].tensors - 1) > _AGAIN:
            peaks += [measured_peak(resolved, case.ranks, _name(case)) for _ in range(2)]
    found = [peak for peak in peaks if peak is not None]
    if len(found) < len(peaks):
        return None
    peak = min(found, key=lambda peak: peak.tensors)
    return Row(
        **asdict(case),
        predicted=expected,
        measured=peak.tensors,
        with_workspaces=peak.with_workspaces,
        steps=STEPS[-1],
    )


def predicted(resolved: Resolved, here: Machine) -> Plan:
    """The plan for the largest micro-batch of the measured steps."""
    with patch.object(planning, "_largest", _largest_measured):
        return plan_run(resolved, Described(here))


def _largest_measured(samples: Samples, order: DataOrder, plan: TrainPlan) -> MicroBatch:
    """As plan._largest, of all ranks."""
    found: list[MicroBatch] = []
    for step, rank in product(STEPS, range(plan.world_size)):
        epoch, shares = order.share(step - 1, rank, plan.world_size, plan.micro_batch)
        read = [samples[epoch, share] for share in shares]
        found += [each for each in read if not isinstance(each, DataError)]
    return max(found, key=lambda each: sum(_storages([each]).values()))


def predict_again(row: Row, here: Machine) -> Row:
    """`row` with the peak that is predicted now."""
    with tempfile.TemporaryDirectory(prefix="gearshift-benchmark-") as name:
        plan = predicted(_resolve(_case(row), here, Path(name)), here)
    return replace(row, predicted=plan.device_bytes + plan.offloaded_bytes)


def measured_peak(resolved: Resolved, ranks: int, title: str) -> Peak | None:
    """The peak of real training; None: it failed, with a message."""
    with tempfile.TemporaryDirectory(prefix="gearshift-benchmark-") as name:
        run = Path(name) / "run"
        run.mkdir()
        save_plan(RunPlan(resolved, folder=run), Path(name))
        found = isolated.run("benchmarks.plan_error:train", {"folder": name}, ranks, _LIMIT_S, {})
    if found.error:
        print(f"{title}: {found.error}", file=sys.stderr, flush=True)
        return None
    return Peak(int(found.figures["tensors"]), int(found.figures["with_workspaces"]))


def _resolve(case: Case, here: Machine, folder: Path) -> Resolved:
    sets = [*case.sets, "train.preview=false"]  # it is between steps, and takes long
    if _NF4 in case.sets:
        lora.save_model(folder / "base", 256, 4)
        sets.append(f"model.pretrained={folder / 'base'}")
    if case.bucket is not None:
        file = folder / "ds_config.json"
        file.write_text(json.dumps({"zero_optimization": {"reduce_bucket_size": case.bucket}}))
        sets.append(f"engine.ds_config={file}")
    args = CliArgs(model=f"{case.family}:tiny", mode=case.mode, engine=case.engine, sets=sets)
    return resolve(args, here, case.ranks)


def with_others(
    path: Path, rows: Sequence[Row], facts: Mapping[str, str]
) -> tuple[list[Row], dict[str, str]]:
    """`rows` with those of other cases in the file, in the order of all cases; the machines.

    A processor decides what workspaces need, which count apart, and not what tensors need.
    """
    _, where, stored = load_rows(path, Row) if path.exists() else ("", dict(facts), list[Row]())
    order = {case: place for place, case in enumerate(cases())}
    found = {_case(row): row for row in (*stored, *rows)}
    both = sorted(found.values(), key=lambda row: order.get(_case(row), len(order)))
    return both, joined(where, facts)


def _case(row: Row) -> Case:
    return Case(row.family, row.engine, row.ranks, row.mode, tuple(row.sets), row.bucket)


def table(rows: Sequence[Row]) -> list[str]:
    """The rows with the largest errors as the lines of a Markdown table."""
    found = []
    for row in sorted(rows, key=lambda row: abs(row.error), reverse=True)[:SHOWN]:
        run = [f"`{row.family}`", f"`{row.engine}`", str(row.ranks), _changes_of(row)]
        sizes = [f"{size / 1e6:.2f}" for size in (row.predicted, row.measured, row.with_workspaces)]
        found.append([*run, *sizes, f"{row.error:+.1%}"])
    heads = ["family", "engine", "ranks", "settings", "predicted MB", "measured MB"]
    return markdown([*heads, "with workspaces MB", "error"], found, numbers=4)


def _changes_of(run: Case | Row) -> str:
    """How a run differs from the default."""
    mode = [f"mode={run.mode}"] if run.mode != "default" else []
    bucket = [f"reduce_bucket_size={run.bucket}"] if run.bucket else []
    return ", ".join(f"`{each}`" for each in (*mode, *run.sets, *bucket)) or "–"


def _name(run: Case | Row) -> str:
    return f"{run.family}, {run.engine} on {run.ranks}, {_changes_of(run)}"


def main() -> int:
    """Measure, print the table, and write JSON where asked; 1: a peak is 5 % off."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="+", default=[*FAMILIES], choices=FAMILIES)
    parser.add_argument("--engines", nargs="+", default=[*ENGINES], choices=ENGINES)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--limit", type=int, help="only so many cases")
    parser.add_argument("--predict-only", action="store_true", help="keep what --json measured")
    parser.add_argument("--json", type=Path, help="add the figures to those in this file")
    options = parser.parse_args()
    if options.predict_only and not options.json:
        parser.error("--predict-only needs --json")
    isolated.preload(["torch._dynamo", "torch.distributed.fsdp", "gearshift.launcher.run.worker"])
    facts = machine(("torch", "deepspeed", "fairscale"))
    here = replace(detect_machine(), gpus=0, device="cpu")
    wanted = [*islice(cases(options.families, options.engines, options.kinds), options.limit)]
    stored: dict[Case, Row] = {}
    if options.predict_only:
        stored = {_case(row): row for row in with_others(options.json, [], facts)[0]}
        wanted = [case for case in wanted if case in stored]
    rows = []
    for case in wanted:
        row = predict_again(stored[case], here) if case in stored else measure(case, here)
        if row is not None:
            print(f"{_name(case)}: {row.error:+.1%}", file=sys.stderr, flush=True)
            rows.append(row)
            if options.json:
                everything, machines = with_others(options.json, rows, facts)
                save_rows(options.json, command("plan_error", []), machines, everything)
    print(listed(facts), *table(rows), sep="\n")
    errors = [abs(row.error) for row in rows]
    return int(len(rows) < len(wanted) or max(errors, default=0) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
