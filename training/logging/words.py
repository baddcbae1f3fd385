"""The lines a run prints, made from its facts; the same on a terminal, in a file and in the log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from training.about import About
from training.callbacks.base import EvalResult, Outcome, StepMetrics, TrainPlan
from training.logging.progress import Position
from training.logging.quantities import amount, duration, real, size
from training.resources.gauges import Near

_LABEL = 9
_WIDTH = 88
"""Of text behind a label, where it is wrapped."""


def row(label: str, text: str) -> str:
    """A line that begins with its label; further lines of `text` stand below the first."""
    return f"{label:<{_LABEL}}  " + text.replace("\n", "\n" + " " * (_LABEL + 2))


def head(about: About, train_plan: TrainPlan) -> list[str]:
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
        row("model", f"{about.model}, {amount(about.parameters)} parameters"),
        row("mode", about.mode),
        row("engine", f"{about.engine} on {processes}, {about.device}, {about.precision}"),
        row("batch", batch),
        row("run", run),
    ]
    if about.data:
        lines.append(_wrapped("data", _facts(about.data)))
    lines.extend(_wrapped("note", note) for note in about.notes)
    return lines


def train(line: StepMetrics, position: Position, units: str, use: str = "") -> str:
    """A logged step; `use` is what `use` gave."""
    texts = [f"{_step(line.step, position.total_steps)}", *_numbers(line, units)]
    if use:
        texts.append(use)
    texts.append(f"{remaining(position):>8} left")
    return row("step", "  ".join(texts))


def status(position: Position, units: str, use: str = "") -> str:
    """The newest numbers, for the line under a progress bar."""
    if position.last is None:
        return "waiting for the first logged step"
    texts = [*(text.strip() for text in _numbers(position.last, units)), use]
    return "  ".join(filter(None, texts))


def use(percents: Mapping[str, float]) -> str:
    """How full the machine's memory is: `ram 63%  gpu 71%`; nothing where nobody looked."""
    return "  ".join(f"{k} {percents[k]:.0f}%" for k in ("ram", "gpu") if k in percents)


def machine(near: Sequence[Near]) -> list[str]:
    """What came near to a limit, or went over it, as lines of a summary."""
    texts = [
        f"{one.name} at most {one.highest:.0f}%, {'over' if one.is_over else 'near'} "
        f"its limit of {one.limit:g}%"
        for one in near
    ]
    return [row("machine", "; ".join(texts))] if texts else []


def evaluation(found: EvalResult, total_steps: int) -> str:
    """The metrics of a split, with a mark where they are the best so far."""
    metrics = "  ".join(f"{name} {real(value)}" for name, value in found.metrics.items())
    best = "  ← best" if found.is_best else ""
    step = _step(found.step, total_steps)
    return row("eval", f"{step}  {found.split}  {metrics}  ({duration(found.seconds)}){best}")


def saved(name: str, step: int, total_steps: int) -> str:
    """A checkpoint that is on disk."""
    return row("saved", f"{_step(step, total_steps)}  {name}")


def resumed(facts: Mapping[str, Any]) -> str:
    """Where a run goes on, and what has changed since."""
    by = facts["written_by"]
    processes = f"{by['world_size']} process{'es' if by['world_size'] > 1 else ''}"
    lines = [f"from {facts['checkpoint']}, written by {by['engine']} on {processes}"]
    lines += [f"{part} begins anew" for part in facts["reset"]]
    return row("resumed", "\n".join([*lines, *facts["changes"]]))


def learnt(facts: Mapping[str, Any]) -> str:
    """What an experience made of old and new data, by the metric that is judged by."""
    name = facts["metric"]

    def moved(side: str) -> str:
        before, after = (facts[side][when].get(name, math.nan) for when in ("before", "after"))
        return f"{side} data {real(before)} → {real(after)}"

    return row("experience", f"{facts['number']} learnt: {name} on {moved('old')}, {moved('new')}")


def summary(outcome: Outcome) -> list[str]:
    """How the run ended."""
    done = f"{outcome.steps} steps, {outcome.epochs:.4g} epochs in {duration(outcome.wall_s)}"
    lines = [row(outcome.status, f"{done}; {outcome.reason}" if outcome.reason else done)]
    if outcome.best is not None:
        best = outcome.best
        value = best["value"]
        text = real(value) if isinstance(value, float) else str(value)
        lines.append(row("best", f"{best['metric']} {text} at step {best['step']}"))
    if outcome.samples_per_s is not None:
        lines.append(row("speed", f"{amount(outcome.samples_per_s)} samples/s"))
    if outcome.timing is not None:
        lines.append(row("timing", _timing(outcome.timing)))
    peaks = [
        f"{place} {size(count)}"
        for place in ("device", "host")
        if (count := outcome.peak_memory_bytes.get(place)) is not None
    ]
    if peaks:
        lines.append(row("memory", "at most " + ", ".join(peaks)))
    return lines


def event(kind: str, facts: Mapping[str, Any]) -> str:
    """Any event, for the log."""
    return row("event", f"{kind}  {_facts(facts)}".rstrip())


def visible(text: str) -> str:
    """`text` without what would steer a terminal: an untrained model writes escape codes too."""
    return "".join(map(_visible, text))


def remaining(position: Position) -> str:
    """Time to the end; `>` where something still to come has never been measured."""
    if position.remaining_s is None:
        return "–"
    return (">" if position.remaining_is_least else "") + duration(position.remaining_s)


def _wrapped(label: str, text: str) -> str:
    return row(label, "\n".join(wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)))


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
    return visible(str(value))
