"""The lines a run prints, made from its facts; the same on a terminal, in a file and in the log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any

from training.callbacks.base import EvalResult, Outcome, RunInfo, StepMetrics
from training.logging.progress import Position
from training.logging.quantities import amount, duration, real, size
from training.resources.monitor import Near
from training.train_plan import TrainPlan

_LABEL = 9
_WIDTH = 88
"""Of text behind a label, where it is wrapped."""


def render_row(label: str, text: str) -> str:
    """A line that begins with its label; further lines of `text` stand below the first."""
    return f"{label:<{_LABEL}}  " + text.replace("\n", "\n" + " " * (_LABEL + 2))


def render_header(about: RunInfo, train_plan: TrainPlan) -> list[str]:
    """What is trained, on what, in what portions."""
    processes = f"{train_plan.world_size} process{'es' if train_plan.world_size > 1 else ''}"
    batch = (
        f"{train_plan.global_batch} samples = {train_plan.micro_batch} a micro-batch"
        f" × {train_plan.accumulation} accumulated × {processes}"
    )
    epochs = train_plan.epoch(train_plan.total_steps)
    run = f"{train_plan.total_steps} steps = {epochs:.4g} epochs of {train_plan.steps_per_epoch} steps"
    if train_plan.end_step < train_plan.total_steps:
        run += f", ends after step {train_plan.end_step}"
    if train_plan.first_step:
        run += f", {train_plan.first_step} done before"
    lines = [
        render_row("model", f"{about.model}, {amount(about.parameters)} parameters"),
        render_row("mode", about.mode),
        render_row("engine", f"{about.engine} on {processes}, {about.device}, {about.precision}"),
        render_row("batch", batch),
        render_row("run", run),
    ]
    if about.data:
        lines.append(_wrapped("data", _facts(about.data)))
    lines.extend(_wrapped("note", note) for note in about.notes)
    return lines


def render_step(line: StepMetrics, position: Position, units: str, use: str = "") -> str:
    """A logged step; `use` is what `use` gave."""
    texts = [f"{_step(line.step, position.total_steps)}", *_numbers(line, units)]
    if use:
        texts.append(use)
    texts.append(f"{render_eta(position):>8} left")
    return render_row("step", "  ".join(texts))


def render_status(position: Position, units: str, use: str = "") -> str:
    """The newest numbers, for the line under a progress bar."""
    if position.last is None:
        return "waiting for the first logged step"
    texts = [*(text.strip() for text in _numbers(position.last, units)), use]
    return "  ".join(filter(None, texts))


def render_usage(percents: Mapping[str, float]) -> str:
    """How full the machine's memory is: `ram 63%  gpu 71%`; nothing where nobody looked."""
    return "  ".join(f"{k} {percents[k]:.0f}%" for k in ("ram", "gpu") if k in percents)


def render_near_limits(near: Sequence[Near]) -> list[str]:
    """What came near to a limit, or went over it, as lines of a summary."""
    texts = [
        f"{one.name} at most {one.highest:.0f}%, {'over' if one.is_over else 'near'} "
        f"its limit of {one.limit:g}%"
        for one in near
    ]
    return [render_row("machine", "; ".join(texts))] if texts else []


def render_evaluation(found: EvalResult, total_steps: int) -> str:
    """The metrics of a split, with a mark where they are the best so far."""
    metrics = "  ".join(f"{name} {real(value)}" for name, value in found.metrics.items())
    best = "  ← best" if found.is_best else ""
    step = _step(found.step, total_steps)
    return render_row(
        "eval", f"{step}  {found.split}  {metrics}  ({duration(found.seconds)}){best}"
    )


def render_saved(name: str, step: int, total_steps: int) -> str:
    """A checkpoint that is on disk."""
    return render_row("saved", f"{_step(step, total_steps)}  {name}")


def render_resumed(facts: Mapping[str, Any]) -> str:
    """Where a run goes on, and what has changed since."""
    by = facts["written_by"]
    processes = f"{by['world_size']} process{'es' if by['world_size'] > 1 else ''}"
    lines = [f"from {facts['checkpoint']}, written by {by['engine']} on {processes}"]
    lines += [f"{part} begins anew" for part in facts["reset"]]
    return render_row("resumed", "\n".join([*lines, *facts["changes"]]))


def render_experience(facts: Mapping[str, Any]) -> str:
    """What an experience made of old and new data, by the metric that is judged by."""
    name = facts["metric"]

    def moved(side: str) -> str:
        before, after = (facts[side][when].get(name, math.nan) for when in ("before", "after"))
        return f"{side} data {real(before)} → {real(after)}"

    return render_row(
        "experience", f"{facts['number']} learnt: {name} on {moved('old')}, {moved('new')}"
    )


def render_summary(outcome: Outcome) -> list[str]:
    """How the run ended."""
    done = f"{outcome.steps} steps, {outcome.epochs:.4g} epochs in {duration(outcome.wall_s)}"
    lines = [render_row(outcome.status, f"{done}; {outcome.reason}" if outcome.reason else done)]
    if outcome.best is not None:
        best = outcome.best
        value = best["value"]
        text = real(value) if isinstance(value, float) else str(value)
        lines.append(render_row("best", f"{best['metric']} {text} at step {best['step']}"))
    if outcome.samples_per_s is not None:
        lines.append(render_row("speed", f"{amount(outcome.samples_per_s)} samples/s"))
    if outcome.timing is not None:
        lines.append(render_row("timing", _timing(outcome.timing)))
    peaks = [
        f"{place} {size(count)}"
        for place in ("device", "host")
        if (count := outcome.peak_memory_bytes.get(place)) is not None
    ]
    if peaks:
        lines.append(render_row("memory", "at most " + ", ".join(peaks)))
    return lines


def render_event(kind: str, facts: Mapping[str, Any]) -> str:
    """Any event, for the log."""
    return render_row("event", f"{kind}  {_facts(facts)}".rstrip())


def printable(text: str) -> str:
    """`text` without what would steer a terminal: an untrained model writes escape codes too."""
    return "".join(map(_visible, text))


def render_eta(position: Position) -> str:
    """Time to the end; `>` where something still to come has never been measured."""
    if position.remaining_s is None:
        return "–"
    return (">" if position.remaining_is_least else "") + duration(position.remaining_s)


def _wrapped(label: str, text: str) -> str:
    return render_row(
        label, "\n".join(wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False))
    )


def _numbers(line: StepMetrics, units: str) -> list[str]:
    texts = [f"loss {real(line.loss):>8}"]
    texts += [f"{name} {real(value):>8}" for name, value in line.parts.items()]
    texts += [
        f"lr {line.lr:.2e}",
        f"norm {real(line.grad_norm):>8}",
        f"{amount(line.units_per_s):>5} {units}/s",
    ]
    memory = line.device_memory_bytes
    texts.append(f"{size(line.host_memory_bytes if memory is None else memory):>9}")
    if line.mfu is not None:
        texts.append(f"mfu {100 * line.mfu:4.1f}%")
    if line.skipped:
        texts.append(f"skipped {line.skipped}")
    return texts


def _timing(found: Mapping[str, float]) -> str:
    steps, left_out = int(found["steps"]), int(found["warmup_steps"])
    median, low, high = (1000 * found[key] for key in ("median_s", "p10_s", "p90_s"))
    return (
        f"{median:.4g} ms a step, four in five from {low:.4g} to {high:.4g}, of {steps} steps"
        f" after {left_out}\n{found['batches_per_s']:.4g} batches/s,"
        f" {found['samples_per_s']:.4g} samples/s"
    )


def _step(step: int, total: int) -> str:
    return f"{step:>{len(str(total))}}/{total}"


def _visible(letter: str) -> str:
    if letter.isprintable() or letter in "\n\t":
        return letter
    return " " if letter.isspace() else "�"


def _facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{str(key).replace('_', ' ')} {_value(value)}" for key, value in facts.items()
    )


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return f"({_facts(value)})"
    if isinstance(value, (list, tuple)):
        return " ".join(_value(inner) for inner in value)
    return printable(str(value))


Facts = Mapping[str, Any]


def render_urgent(kind: str, facts: Facts) -> str | None:
    """The text of an event of that kind; None: it can wait for the log."""
    found = _TEXTS.get(kind)
    if found is None:
        return None
    return found(facts) if callable(found) else found.format_map({**facts, "use": _use(facts)})


def _signal(facts: Facts) -> str:
    names = " and ".join(facts["names"])
    again = "; Ctrl-C once more ends at once" if "SIGINT" in facts["names"] else ""
    ending = "saving and ending" if facts["saves"] else "ending, without saving,"
    return f"{names}: {ending} after this step{again}"


def _straggler(facts: Facts) -> str:
    took, others = _short(facts["seconds"]), _short(facts["median_seconds"])
    does = "computes" if facts["what"] == "step" else "waits for its data"
    return f"rank {facts['rank']} on {facts['host']} {does} {took} a step, the others {others}"


def _short(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else duration(seconds)


def _use(facts: Facts) -> str:
    """How much of what is over its limit is in use."""
    over = facts.get("over") or facts.get("critical") or []
    return ", ".join(f"{name} {facts[name]:.0f}%" for name in over)


_TEXTS: Mapping[str, str | Callable[[Facts], str]] = {
    "warning": "{text}",
    "signal": _signal,
    "deadline": "the hours of --max-hours have passed: saving and ending after this step",
    "limit_exceeded_at_start": (
        "{use} over its limit before the run began; only limits.critical counts"
    ),
    "throttled": "{use} over its limit: giving back what can be given back",
    "pressure": "{use} still over its limit: saving and ending; see limits.*",
    "limit_given_up": (
        "{use} over its limit, and nothing a run can do helps: not watched any more"
    ),
    "disk_filling": "{use} over its limit: free some, or saving will fail",
    "straggler": _straggler,
    "straggler_gone": "rank {rank} on {host} keeps up again",
    "fewer_workers": "loader workers {from} → {to}, to take less",
    "out_of_memory": "memory ran out in step {at}: {text}",
    "smaller_micro_batch": (
        "micro-batch {from} → {to} × {accumulation} accumulated: the global batch stays"
    ),
}
"""Braces hold a fact, or `use`; a function makes what is more than that."""
