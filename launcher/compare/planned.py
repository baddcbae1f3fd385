"""Promises of a GPU where there is none: the figures of each candidate from its plan."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from launcher.compare import runner
from launcher.compare.candidates import BASELINE, ModeCandidate, PlannedComparison
from launcher.compare.promises import Figures
from training.throughput import gpus

CARDS = ("L4", "A100 80GB PCIe", "B200")
"""GPUs of 24, 80 and 180 GB; plans are for the first on which mode default fits."""
_MEMORY, _TIMES = "device_peak", {"step_time": "step", "epoch_time": "epoch", "total_time": "run"}


def plan(comparison: PlannedComparison, report_line: runner.PrintLine) -> runner.Planned:
    """Plan what the promises of a GPU need, each on the same card as mode default.

    Mode default is planned once per engine; a candidate without such promises is not.
    """
    needed = dict.fromkeys(item.engine for item in comparison.candidates if item.is_open)
    figures = runner.Planned()
    for engine in needed:
        items = [item for item in comparison.candidates if item.engine == engine]
        base = next(item for item in items if item.mode == BASELINE)
        for card in CARDS:
            figures[base.mode, engine] = _figures(comparison, base, card, report_line)
            peak = figures[base.mode, engine][None].values.get(_MEMORY)
            if peak is None or peak <= (gpus()[card].memory_bytes or 0):
                break
        for item in items:
            if item.is_open and item is not base:
                figures[item.mode, engine] = _figures(comparison, item, card, report_line)
    return figures


def _figures(
    comparison: PlannedComparison, item: ModeCandidate, card: str, report_line: runner.PrintLine
) -> Mapping[str | None, Figures]:
    """The figures of one candidate on `card`, with why there are none where it has no plan."""
    report_line(f"plan: {item.mode} {item.engine} on {item.resolved.nproc} × {card}")
    limits = comparison.limits.sets
    args = replace(item.args, sets=[text for text in item.args.sets if text not in limits])
    if item.resolved.values["device"].is_of_user:
        args = args.with_sets(["device=cuda"])
    command = [sys.executable, "-m", "launcher", "plan", *runner.arguments(args), "--json"]
    command += [f"--gpu={card}", f"--gpus={item.resolved.nproc}"]
    done = subprocess.run(command, capture_output=True, text=True, env=runner.variables())
    content: Any = None
    with suppress(ValueError):
        content = json.loads(done.stdout)
    if done.returncode or not isinstance(content, dict):
        why = f"no GPU, and no plan: {runner.first_line(done.stdout, done.stderr)}"
        return {None: Figures(why={_MEMORY: why}, gpu=card)}
    stages = {None: content} if "engine" in content else content
    parts = {name: _of_plan(part, card) for name, part in stages.items()}
    return parts if None in parts else {None: _whole(list(parts.values())), **parts}


def _of_plan(content: Mapping[str, Any], card: str) -> Figures:
    """The figures of one plan: bytes, and seconds by the data sheet of the card."""
    seconds = {name: content["seconds"][part] for name, part in _TIMES.items()}
    peak, step_s = content["device_peak_bytes"]["total"], seconds["step_time"]
    per_s = content["global_batch"] / step_s if step_s else None
    memory = dict.fromkeys((_MEMORY, "peak_memory"), peak)
    return Figures({**memory, **seconds, "samples_per_s": per_s}, gpu=card)


def _whole(parts: list[Figures]) -> Figures:
    """Staged training: the largest peak, the sum of the times."""
    peak = max(part.values[_MEMORY] or 0 for part in parts)
    times = [part.values["total_time"] for part in parts]
    total = sum(time or 0 for time in times) if None not in times else None
    memory = dict.fromkeys((_MEMORY, "peak_memory"), peak)
    return Figures({**memory, "total_time": total}, gpu=parts[0].gpu)
