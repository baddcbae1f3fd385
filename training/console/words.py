"""The lines a run prints, made from its facts; the same on a terminal, in a file and in the log."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from training.about import About
from training.console.progress import Position
from training.console.quantities import amount, duration, real, size
from training.hooks import Budget, Evaluation, Logged, Outcome

_LABEL = 9
_WIDTH = 88
"""Of text behind a label, where it is wrapped."""


def row(label: str, text: str) -> str:
    """A line that begins with its label; further lines of `text` stand below the first."""
    return f"{label:<{_LABEL}}  " + text.replace("\n", "\n" + " " * (_LABEL + 2))


def head(about: About, budget: Budget) -> list[str]:
    """What is trained, on what, in what portions."""
    processes = f"{budget.world_size} process{'es' if budget.world_size > 1 else ''}"
    batch = (
        f"{budget.global_batch} samples = {budget.micro_batch} a micro-batch"
        f" × {budget.accumulation} accumulated × {processes}"
    )
    epochs = budget.epoch(budget.total_steps)
    run = f"{budget.total_steps} steps = {epochs:.4g} epochs of {budget.steps_per_epoch} steps"
    if budget.first_step:
        run += f", {budget.first_step} done before"
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


def train(line: Logged, position: Position, units: str) -> str:
    """A logged step."""
    texts = [f"{_step(line.step, position.total_steps)}", *_numbers(line, units)]
    texts.append(f"{remaining(position):>8} left")
    return row("step", "  ".join(texts))


def status(position: Position, units: str) -> str:
    """The newest numbers, for the line under a progress bar."""
    if position.last is None:
        return "waiting for the first logged step"
    return "  ".join(text.strip() for text in _numbers(position.last, units))


def evaluation(found: Evaluation, total_steps: int) -> str:
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
    peaks = [
        f"{place} {size(count)}"
        for place, count in outcome.peak_memory_bytes.items()
        if count is not None
    ]
    if peaks:
        lines.append(row("memory", "at most " + ", ".join(peaks)))
    return lines


def warning(kind: str, facts: Mapping[str, Any]) -> str | None:
    """What a person should know at once of an event; None: it can wait for the log."""
    if kind == "warning":
        return str(facts["text"])
    if kind == "signal":
        names = " and ".join(facts["names"])
        again = "; Ctrl-C once more ends at once" if "SIGINT" in facts["names"] else ""
        ending = "saving and ending" if facts["saves"] else "ending, without saving,"
        return f"{names}: {ending} after this step{again}"
    if kind == "limit_exceeded_at_start":
        return f"{_use(facts)} over its limit before the run began; only limits.critical counts"
    if kind == "throttled":
        return f"{_use(facts)} over its limit: giving back what can be given back"
    if kind == "pressure":
        return f"{_use(facts)} still over its limit: saving and ending; see limits.*"
    return None


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


def _numbers(line: Logged, units: str) -> list[str]:
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


def _step(step: int, total: int) -> str:
    return f"{step:>{len(str(total))}}/{total}"


def _visible(letter: str) -> str:
    if letter.isprintable() or letter in "\n\t":
        return letter
    return " " if letter.isspace() else "�"


def _use(facts: Mapping[str, Any]) -> str:
    over = facts.get("over") or facts.get("critical") or []
    return ", ".join(f"{name} {facts[name]:.0f}%" for name in over)


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
