"""A plan as text: what a run needs, whether it fits, and the ladder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from launcher.base.diagnostics import counted
from launcher.config.provenance import Resolved
from launcher.config.schema import model_name
from launcher.plan.ladder import Step, taken
from launcher.plan.plan import MARGIN, MEASURED, UNCOMPILED, Plan
from launcher.plan.time import Seconds
from training.logging.quantities import amount, duration, size


def text(
    resolved: Resolved, plan: Plan, steps: Sequence[Step], command: Callable[[Sequence[str]], str]
) -> str:
    """The plan for people. `command` gives the run with further settings."""
    lines = [*_head(resolved, plan), "", *_memory(plan), "", _verdict(plan)]
    if steps:
        lines += ["", *_rungs(plan, steps)]
    if (take := taken(steps)) is not None:
        lines += ["", f"  {command(take.sets)}    ({take.plan.needs})"]
    return "\n".join(lines)


def _head(resolved: Resolved, plan: Plan) -> Iterator[str]:
    settings, target = resolved.settings, plan.target
    where = f"{counted(target.nodes, 'node')} × " if target.nodes > 1 else ""
    trained = "" if plan.trace.trainable == plan.parameters else f", {plan.trace.trainable:,} of them trained"
    yield f"model        {model_name(settings.model)}, {plan.parameters:,} parameters{trained}"
    yield f"mode         {settings.mode}, {settings.precision}"
    yield (f"engine       {plan.engine} on {where}{counted(target.ranks_per_node, 'rank')}, {target.device}")
    if resolved.chosen is not None:
        yield f"             {resolved.chosen.line}"
        for other in resolved.chosen.others:
            yield f"             {other}"
    yield f"step         {resolved.batching}"
    yield f"operations   {amount(plan.trace.flops * target.ranks)}FLOP per step"
    yield f"traffic      {size(plan.placed.sent_bytes)} sent per rank and step"
    yield f"checkpoint   {size(plan.checkpoint_bytes)}"
    yield f"length       {counted(plan.steps, 'step')}"
    yield f"time         {_time(plan.seconds)}"
    if plan.untraced is not None:
        yield f"basis        {MEASURED}: {plan.untraced}"
    if plan.is_compiled:
        yield f"basis        {UNCOMPILED}"


def _time(seconds: Seconds) -> str:
    if seconds.step is None or seconds.epoch is None or seconds.run is None:
        return seconds.basis
    least = "at least " if seconds.is_least else ""
    step, epoch, run = (
        duration(each) if each >= 1 else f"{1000 * each:.3g} ms"
        for each in (seconds.step, seconds.epoch, seconds.run)
    )
    return f"{least}{step} per step, {epoch} per epoch, {run} for the run ({seconds.basis})"


def _memory(plan: Plan) -> Iterator[str]:
    whole = max(plan.device_bytes, 1)
    yield f"{'peak of a rank':<18} {size(plan.device_bytes):>10}"
    for kind, held in plan.device.items():
        yield f"  {kind.name.lower():<16} {size(held):>10}  {held / whole:>4.0%}"
    yield f"{'host, each node':<18} {size(plan.host_bytes):>10}" + (
        f"  of {size(plan.target.ram_bytes)}" if plan.target.ram_bytes else ""
    )


def _verdict(plan: Plan) -> str:
    if plan.fits:
        return f"fits: {plan.needs}"
    if plan.fits is None:
        return f"needs {plan.needs}; say how much there is with  --gpu-memory SIZE  or  --ram SIZE"
    free = f", of which {MARGIN:.0%} stay free"
    if not plan.is_host_bound:
        free = " that other processes, the CUDA context and NCCL leave"
    return f"does not fit: {plan.needs}{free}"


def _rungs(plan: Plan, steps: Sequence[Step]) -> Iterator[str]:
    """A line for each rung, with its time relative to `plan`; `>` is the one to take."""
    yield f"  {'ladder':<25}{'rank':>10} {'host':>10} {'time':>6}"
    take = taken(steps)
    for step in steps:
        marks = [*(["fits"] if step.plan.fits is not False else []), step.effect]
        mark = ">" if step is take else " "
        yield (
            f"{mark} {step.name:<25}{size(step.plan.device_bytes):>10} "
            f"{size(step.plan.host_bytes):>10} {step.plan.cost / plan.cost:>6.2f}  "
            f"{', '.join(filter(None, marks))}"
        ).rstrip()
