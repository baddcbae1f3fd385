"""The lines a run prints: the same on a terminal, in a pipe and in log.txt."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from textwrap import wrap
from typing import Any

from training import stop_reason
from training.callbacks.base import EvalResult, Facts, Numbers, Outcome, RunInfo, StepMetrics
from training.logging.progress import Position
from training.logging.quantities import amount, counted, duration, real, size
from training.train_plan import TrainPlan

_LABEL = 9
_WIDTH = 88  # Width at which text after a label is wrapped


def render_row(label: str, text: str) -> str:
    """A line that starts with its label; further lines of `text` are indented below the first."""
    return f"{label:<{_LABEL}}  " + text.replace("\n", "\n" + " " * (_LABEL + 2))


def render_header(about: RunInfo, train_plan: TrainPlan) -> list[str]:
    """The model, the machine, the batch and the length of a run."""
    plan, trained = train_plan, about.trainable_parameters
    processes = counted(plan.world_size, "process")
    of_model = f"{about.model}, {amount(about.parameters)} parameters"
    if trained not in (None, about.parameters):
        of_model += f", of which {amount(trained or 0)} train"
    batch = f"{counted(plan.global_batch, 'sample')} = micro-batch {plan.micro_batch}"
    batch += f" × accumulation {plan.accumulation} × {processes}"
    epochs = counted(plan.epoch(plan.total_steps), "epoch")
    run = f"{counted(plan.total_steps, 'step')} = {epochs} of {counted(plan.steps_per_epoch, 'step')}"
    run += f", stops after step {plan.end_step}" if plan.end_step < plan.total_steps else ""
    run += f", {plan.first_step} done before" if plan.first_step else ""
    rows = [("model", of_model), ("mode", about.mode)]
    rows += [("engine", f"{about.engine} on {processes}, {about.device}, {about.precision}")]
    rows += [("batch", batch), ("run", run)]
    facts = dict(about.data)
    warning = facts.pop("warning", None)
    rows += [("data", _facts(facts))] if about.data else []
    rows += [] if warning is None else [("warning", warning)]
    if about.evaluated is not None and (part := render_part(*about.evaluated)):
        rows.append(("eval", f"val: {part}"))
    rows += [("note", note) for note in about.notes]
    return [render_row(label, _wrapped(text)) for label, text in rows]


def render_part(samples: int | None, split_samples: int | None) -> str:
    """`512 of 3,672 samples (eval.samples)`; empty: all were evaluated, or it is unknown."""
    if samples is None or split_samples is None or samples == split_samples:
        return ""
    return f"{samples:,} of {split_samples:,} samples (eval.samples)"


def render_over(best: Facts) -> str:
    """What a best value was measured over, unless that is the whole split; starts with a comma."""
    part = render_part(best.get("samples"), best.get("split_samples"))
    return f", over {part}" if part else ""


def render_step(line: StepMetrics, position: Position, units: str, usage: str = "") -> str:
    texts = [_step(line.step, position.total_steps), *_numbers(line, units), usage]
    return render_row("step", "  ".join([*filter(None, texts), render_eta(position)]))


def render_status(position: Position, units: str) -> str:
    """The newest numbers, for the line below a progress bar."""
    if position.last is None:
        return "waiting for the first logged step"
    return "  ".join(text.strip() for text in _numbers(position.last, units))


def render_usage(uses: Numbers) -> str:
    """Memory in use: `ram 63%  gpu 71%`; empty without a reading."""
    return "  ".join(f"{k} {_amount(k, uses[k])}" for k in ("ram", "gpu") if k in uses)


def describe_event(kind: str, step: int, facts: Facts) -> str | None:
    """An event in one line, for a live view; None: one that is not shown there."""
    if kind == "evaluated":
        name, value = next(iter(facts["metrics"].items()))
        best = ", the best so far" if facts["is_best"] else ""
        return f"evaluated {facts['split']} at step {facts['step']}: {name} {real(float(value))}{best}"
    if kind == "saved":
        return f"saved checkpoint of step {facts['step']}"
    if kind == "resumed":
        return f"resumed from {facts['checkpoint']}"
    label, text = describe(kind, facts) or ("", "")
    return f"step {step}: {text}" if label == WARNING else None


def _amount(resource: str, value: float) -> str:
    return f"{value:.0f}{' °C' if resource == 'temperature' else '%'}"


def render_evaluation(result: EvalResult, total_steps: int) -> str:
    """The metrics of a split, with a mark if they are the best so far."""
    metrics = "  ".join(f"{name} {real(value)}" for name, value in result.metrics.items())
    best = "  ← best" if result.is_best else ""
    step = _step(result.step, total_steps)
    text = f"{step}  {result.split}  {metrics}  ({duration(result.seconds)}){best}"
    return render_row("eval", text)


def render_saved(name: str, step: int, total_steps: int) -> str:
    return render_row("saved", f"{_step(step, total_steps)}  {name}")


def describe(kind: str, facts: Facts) -> tuple[str, str] | None:
    """Label and text of an event that every user wants to see; None: it is for the log only."""
    if kind not in _EVENTS or (kind == "advice" and "is_end" in facts):
        return None
    label, form = _EVENTS[kind]
    if not isinstance(form, str):
        return label, form(facts)
    # Use of the resources that are over their limit.
    over = facts.get("over") or facts.get("critical") or []
    use = ", ".join(f"{name} {_amount(name, facts[name])}" for name in over)
    return label.format_map(facts), form.format_map({**facts, "use": use})


def render_summary(outcome: Outcome, predicted: Mapping[str, int | None] | None) -> list[str]:
    """The end of a run, with its best evaluation, speed and memory, beside the predicted peaks."""
    length = f"{counted(outcome.steps, 'step')}, {counted(outcome.epochs, 'epoch')}"
    done = f"{length} in {duration(outcome.wall_s)}"
    is_told = outcome.reason in ("", stop_reason.FINISHED.reason)  # the steps tell it
    text = done if is_told else f"{done}; {outcome.reason}"
    lines = [render_row("finished" if outcome.status == "completed" else outcome.status, text)]
    if outcome.best is not None:
        best = outcome.best
        value = best["value"]
        text = real(value) if isinstance(value, float) else str(value)
        at = f"at step {best['step']}{render_over(best)}"
        lines.append(render_row("best", f"{best['metric']} {text} {at}"))
    if outcome.test is not None:
        metrics = outcome.test["metrics"]
        name = next(iter(metrics)) if outcome.best is None else outcome.best["metric"]
        weights = f"with the weights of step {outcome.test['step']}"
        lines.append(render_row("test", f"{name} {real(metrics[name])} {weights}"))
    if outcome.samples_per_s is not None:
        lines.append(render_row("speed", f"{amount(outcome.samples_per_s)} samples/s"))
    if outcome.timing is not None:
        timing = outcome.timing
        median, low, high = (1000 * timing[key] for key in ("median_s", "p10_s", "p90_s"))
        text = f"median {median:.4g} ms per step, 80% from {low:.4g} to {high:.4g} ms"
        rates = f"{timing['batches_per_s']:.4g} batches/s, {timing['samples_per_s']:.4g} samples/s"
        lines.append(render_row("timing", f"{text}\n{rates}"))
    peaks = []
    for side, count in outcome.peak_memory_bytes.items():
        expected = (predicted or {}).get(side)
        beside = "" if expected is None else f" (predicted: {size(expected)})"
        peaks += [] if count is None else [f"{side} {size(count)}{beside}"]
    return lines + ([render_row("memory", "at most " + ", ".join(peaks))] if peaks else [])


def render_event(kind: str, facts: Facts) -> str:
    """Any event, for the log."""
    return render_row("event", f"{kind}  {_facts(facts)}".rstrip())


def render_eta(position: Position) -> str:
    """Time to the end."""
    return f"ETA {'–' if position.remaining_s is None else duration(position.remaining_s)}"


def _wrapped(text: str) -> str:
    return "\n".join(wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False))


def _numbers(line: StepMetrics, units: str) -> list[str]:
    memory = line.device_memory_bytes
    texts = [
        f"loss {real(line.loss):>8}",
        *(f"{name} {real(value):>8}" for name, value in line.parts.items()),
        f"lr {line.lr:.2e}",
        f"norm {real(line.grad_norm):>8}",
        f"{amount(line.units_per_s):>5} {units}/s",
        f"{size(line.host_memory_bytes if memory is None else memory):>9}",
    ]
    if line.mfu is not None:
        texts.append(f"mfu {100 * line.mfu:4.1f}%")
    if line.skipped:
        texts.append(f"skipped {line.skipped}")
    return texts


def _step(step: int, total: int) -> str:
    return f"{step:>{len(str(total))}}/{total}"


def _facts(facts: Facts) -> str:
    return ", ".join(f"{str(key).replace('_', ' ')} {_value(value)}" for key, value in facts.items())


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
    return str(value)


def _signal(facts: Facts) -> str:
    names = " and ".join(facts["names"])
    again = "; press Ctrl-C again to stop at once" if "SIGINT" in facts["names"] else ""
    action = "saving and stopping" if facts["saves"] else "stopping without saving"
    return f"{names}: {action} after this step{again}"


def _experience(facts: Facts) -> str:
    name = facts["metric"]
    texts = (
        f"{side} data {' → '.join(real(facts[side][at].get(name, math.nan)) for at in ('before', 'after'))}"
        for side in ("old", "new")
    )
    return f"{facts['number']} trained: {name} on {', '.join(texts)}"


def _resumed(facts: Facts) -> str:
    by = facts["written_by"]
    processes = counted(by["world_size"], "process")
    lines = [f"from {facts['checkpoint']}, written by {by['engine']} on {processes}"]
    lines += [f"{part} is reinitialized" for part in facts["reset"]]
    return "\n".join([*lines, *facts["changes"]])


WARNING = "warning"
"""The label of an event that needs attention."""
# Label and text by kind of event. Braces hold a fact, or `use`; a function renders more than that.
_EVENTS: Mapping[str, tuple[str, str | Callable[[Facts], str]]] = {
    "resumed": ("resumed", _resumed),
    "experience_trained": ("experience", _experience),
    "best_loaded": ("weights", "loaded from the best step, {step}"),
    "advice": ("advice", "{seen}: {cause}; fix:  {fix}"),
    "profiled": ("profile", "{trace}: {steps} steps from {first_step}; open it in https://ui.perfetto.dev"),
    "control": ("control", "{text}"),
    "tracked": ("{by}", "{text}"),
    "warning": (WARNING, "{text}"),
    "signal": (WARNING, _signal),
    "deadline": (WARNING, "--max-hours reached: saving and stopping after this step"),
    "limit_exceeded_at_start": (
        WARNING,
        "{use}, over its limit before the run: only limits.critical applies to it",
    ),
    "throttled": (WARNING, "{use}, over its limit: releasing unused memory"),
    "pressure": (WARNING, "{use}, still over its limit: saving and stopping; see limits.*"),
    "limit_given_up": (WARNING, "{use}, over its limit, and throttling does not help: no longer watched"),
    "disk_filling": (WARNING, "{use}, over its limit: free some space, or saving will fail"),
    "straggler": (
        WARNING,
        "rank {rank} on {host} is slow: {what} {seconds:.3g} s a step, others {median_seconds:.3g}",
    ),
    "fewer_workers": (WARNING, "loader workers {from} → {to}, to use less of the machine"),
    "out_of_memory": (WARNING, "out of memory in step {at}: {text}"),
    "smaller_micro_batch": (
        WARNING,
        "micro-batch {from} → {to}, accumulation {accumulation}: the global batch stays",
    ),
}
