"""The lines a run prints: the same on a terminal, in a pipe and in log.txt."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from gearshift.training.callbacks.base import FINISHED, Facts, Outcome, RunInfo
from gearshift.training.logging.encoding import amount, counted, duration, encode, real, size
from gearshift.training.train_plan import TrainPlan

_LABEL = 9
_WIDTH = 88  # Width at which text after a label is wrapped


def render_row(label: str, text: str) -> str:
    """A line that starts with its label; further lines of `text` are indented below the first."""
    below = "\n" + " " * (_LABEL + 2)
    return f"{label:<{_LABEL}}  " + text.replace("\n", below)


def render_header(about: RunInfo, plan: TrainPlan) -> list[str]:
    """The model, the machine, the batch and the length of a run."""
    processes = counted(plan.world_size, "process")
    model = f"{about.model}, {amount(about.parameters)} parameters"
    if about.trainable_parameters != about.parameters:
        model += f", of which {amount(about.trainable_parameters)} train"
    batch = f"{counted(plan.global_batch, 'sample')} = micro-batch {plan.micro_batch}"
    batch += f" × accumulation {plan.accumulation} × {processes}"
    if plan.shares or plan.fits_shares:
        batch += f": {render_shares(plan.samples_by_rank(plan.first_step))}"
    if plan.fits_shares:
        batch += "; then by their speed (engine.shares)"
    per_epoch = counted(plan.steps_per_epoch, "step")
    if plan.has_length:
        epochs = counted(plan.epoch(plan.total_steps), "epoch")
        run = f"{counted(plan.total_steps, 'step')} = {epochs} of {per_epoch}"
        if plan.time_s is not None:
            run = f"{duration(plan.time_s)}, or {run} if that is earlier"
    else:
        run = f"as many steps as fit into {duration(plan.time_s or 0)}, {per_epoch} an epoch"
    if plan.end_step < plan.total_steps:
        run += f", stops after step {plan.end_step}"
    if plan.first_step:
        run += f", {plan.first_step} done before"
    facts = dict(about.data)
    warning = facts.pop("warning", None)
    part = render_part(*about.evaluated)

    rows = [
        ("model", model),
        ("mode", about.mode),
        ("engine", f"{about.engine} on {processes}, {about.device}, {about.precision}"),
        ("batch", batch),
        ("run", run),
        ("data", render_facts(facts)),
        ("warning", warning),
        ("eval", part and f"val: {part}"),
    ]
    rows += [("note", note) for note in about.notes]
    lines = []
    for label, text in rows:
        if text:
            wrapped = wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
            lines.append(render_row(label, "\n".join(wrapped)))
    return lines


def render_shares(samples_by_rank: Sequence[int]) -> str:
    """`24 on rank 0, 8 on rank 1`."""
    return ", ".join(f"{samples} on rank {rank}" for rank, samples in enumerate(samples_by_rank))


def render_part(samples: int | None, split_samples: int | None) -> str:
    """`512 of 3,672 samples (eval.samples)`; empty: all were evaluated, or it is unknown."""
    if samples is None or split_samples is None or samples == split_samples:
        return ""
    return f"{samples:,} of {split_samples:,} samples (eval.samples)"


def render_best(best: Facts) -> str:
    """The best value, its step, what it was measured over, unless that is the whole split, and the
    simple method that comes nearest."""
    value = real(float(best["value"]))
    text = f"{best['metric']} {value} at step {best['step']}"
    part = render_part(best.get("samples"), best.get("split_samples"))
    if part:
        text += f", over {part}"
    baseline = best.get("baseline")
    if baseline:
        value = real(float(baseline["value"]))
        text += f"; baseline {value}: {baseline['name']}"
    return text


def describe(kind: str, facts: Facts) -> tuple[str, str] | None:
    """Label and text of an event that every user wants to see; None: it is for the log only."""
    if "is_end" in facts or facts.get("is_refit"):
        return None
    if kind in _RENDERED:
        label, render = _RENDERED[kind]
        return label, render(facts)
    if kind not in _TEXTS:
        return None
    label, form = _TEXTS[kind]
    # Use of the resources that are over their limit.
    over = facts.get("over") or facts.get("critical") or []
    values = {**facts, "use": ", ".join(f"{name} {facts[name]:.0f}%" for name in over)}
    return label.format_map(values), form.format_map(values)


def render_summary(outcome: Outcome) -> list[str]:
    """The end of a run, with its best evaluation, speed and memory."""
    steps = counted(outcome.steps, "step")
    epochs = counted(outcome.epochs, "epoch")
    text = f"{steps}, {epochs} in {duration(outcome.wall_s)}"
    if outcome.reason not in ("", FINISHED.reason):  # which the steps tell
        text += f"; {outcome.reason}"
    label: str = "finished" if outcome.status == "completed" else outcome.status
    rows = [(label, text)]
    best = outcome.best
    if best is not None:
        rows.append(("best", render_best(best)))
    test = outcome.test
    if test is not None:
        metrics = test["metrics"]
        name = best["metric"] if best is not None else next(iter(metrics))
        value = real(metrics[name])
        rows.append(("test", f"{name} {value} with the weights of step {test['step']}"))
    if outcome.samples_per_s is not None:
        rate = amount(outcome.samples_per_s)
        rows.append(("speed", f"{rate} samples/s"))
    timing = outcome.timing
    if timing is not None:
        median = 1000 * timing["median_s"]
        low = 1000 * timing["p10_s"]
        high = 1000 * timing["p90_s"]
        text = f"median {median:.4g} ms per step, 80% from {low:.4g} to {high:.4g} ms"
        rows.append(("timing", text))

    peaks = []
    for side, count in outcome.peak_memory_bytes.items():
        if count is not None:
            peaks.append(f"{side} {size(count)}")
    if peaks:
        rows.append(("memory", "at most " + ", ".join(peaks)))
    return [render_row(*row) for row in rows]


def render_facts(facts: Facts) -> str:
    """Any facts, for the log and the header."""
    return ", ".join(
        f"{str(key).replace('_', ' ')} {_value(value)}" for key, value in facts.items()
    )


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({render_facts(value)})"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        if abs(value) >= 1000:
            return f"{value:,.0f}"
        return f"{value:.4g}"
    return value if isinstance(value, str) else encode(value)


def _signal(facts: Facts) -> str:
    names = facts["names"]
    action = "saving and stopping" if facts["saves"] else "stopping without saving"
    text = f"{' and '.join(names)}: {action} after this step"
    if "SIGINT" in names:
        text += "; press Ctrl-C again to stop at once"
    return text


def _experience(facts: Facts) -> str:
    name = facts["metric"]
    texts = []
    for side in ("old", "new"):
        metrics = facts[side]
        before = real(metrics["before"].get(name, math.nan))
        after = real(metrics["after"].get(name, math.nan))
        texts.append(f"{side} data {before} → {after}")
    return f"{facts['number']} trained: {name} on {', '.join(texts)}"


def _shares(facts: Facts) -> str:
    return f"{render_shares(facts['samples'])}: so each is ready at the same time"


def _resumed(facts: Facts) -> str:
    by = facts["written_by"]
    processes = counted(by["world_size"], "process")
    origin = f"{by['engine']} on {processes}"
    lines = [f"from {facts['checkpoint']}, written by {origin}"]
    lines += [f"{part} is reinitialized" for part in facts["reset"]]
    return "\n".join([*lines, *facts["changes"]])


WARNING = "warning"
"""The label of an event that needs attention."""
_RENDERED: Mapping[str, tuple[str, Callable[[Facts], str]]] = {
    "signal": (WARNING, _signal),
    "resumed": ("resumed", _resumed),
    "experience_trained": ("experience", _experience),
    "shares": ("shares", _shares),
}
_FILE = Path(__file__).with_name("event_texts.json")
_TEXTS = json.loads(_FILE.read_text("utf-8"))
"""Label and text of other events, by kind. Braces hold a fact, or `use`."""
