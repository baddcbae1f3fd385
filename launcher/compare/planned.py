"""Promises of GPU memory where there is no GPU: the peak of each candidate by its plan."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

from launcher.compare import runner
from launcher.compare.candidates import BASELINE, ModeCandidate, PlannedComparison
from launcher.compare.promises import PlannedMemory
from training.throughput import gpus

CARDS = ("L4", "A100 80GB PCIe", "B200")
"""GPUs of 24, 80 and 180 GB; plans are for the first on which mode default fits."""


def plan(comparison: PlannedComparison, report_line: runner.PrintLine) -> runner.Planned:
    """Plan mode default, and each candidate that promises GPU memory, on one card per engine."""
    planned = runner.Planned()
    for engine in dict.fromkeys(item.engine for item in comparison.candidates if item.is_open):
        items = [item for item in comparison.candidates if item.engine == engine]
        base = next(item for item in items if item.mode == BASELINE)
        for card in CARDS:
            of_base = _peaks(comparison, base, card, report_line)
            total = of_base[None].of_row
            if total is None or total <= (gpus()[card].memory_bytes or 0):
                break
        for item in (item for item in items if item.is_open):
            is_known = item is base or total is None
            peaks = of_base if is_known else _peaks(comparison, item, card, report_line)
            for stage, memory in peaks.items():
                planned[item.mode, engine, stage] = replace(memory, of_base=total or 1.0)
    return planned


def _peaks(
    comparison: PlannedComparison, item: ModeCandidate, card: str, report_line: runner.PrintLine
) -> dict[str | None, PlannedMemory]:
    """The memory of a candidate on `card` by stage, under None of the whole."""
    report_line(f"plan: {item.name} on {item.resolved.nproc} × {card}")
    sets = [text for text in item.args.sets if text not in comparison.limits.sets]
    args = replace(item.args, sets=sets)
    if item.resolved.values["device"].is_of_user:
        args = args.with_sets(["device=cuda"])
    command = [sys.executable, "-m", "launcher", "plan", *runner.arguments(args), "--json"]
    command += [f"--gpu={card}", f"--gpus={item.resolved.nproc}"]
    done = subprocess.run(command, capture_output=True, text=True, env=runner.variables())
    with suppress(ValueError):
        content: Any = json.loads(done.stdout)
        if done.returncode == 0:
            plans = {None: content} if "engine" in content else content
            peaks = {name: plan["device_peak_bytes"]["total"] for name, plan in plans.items()}
            peaks = {None: max(peaks.values()), **peaks}
            return {name: PlannedMemory(f"planned on {card}", x) for name, x in peaks.items()}
    why = f"no GPU, and no plan: {runner.first_line(done.stdout, done.stderr)}"
    return {None: PlannedMemory(why)}
