"""The memory of a GPU that a candidate would take, by its plan, where there is no GPU to measure it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from launcher.compare.candidates import BASELINE, ModeCandidate, PlannedComparison
from launcher.compare.promises import BYTES, GPU_MEMORY
from launcher.config.provenance import CliArgs
from training.throughput import gpus

CARDS = ("L4", "A100 80GB PCIe", "B200")
"""GPUs of 24, 80 and 180 GB; plans are for the first on which mode default fits."""
Peaks = dict[tuple[str, str, str | None], tuple[float, float, str]]
"""By mode, engine and stage, None: all: bytes of the candidate and of mode default, and the card."""


def is_open(item: ModeCandidate) -> bool:
    """Whether it promises memory of a GPU, and its run has none."""
    measures = {name for run in (item.resolved, *item.stages.values()) for name in run.promises}
    return item.resolved.device == "cpu" and bool(measures & {GPU_MEMORY, GPU_MEMORY + BYTES})


def peaks(
    comparison: PlannedComparison, arguments: Callable[[CliArgs], Sequence[str]], env: Mapping[str, str]
) -> Peaks:
    """The planned peaks of the candidates that are open; without those whose plan fails.

    `arguments` gives those of a command line.
    """
    planned = Peaks()
    for engine in dict.fromkeys(item.engine for item in comparison.candidates if is_open(item)):
        items = [item for item in comparison.candidates if item.engine == engine]
        base = next(item for item in items if item.mode == BASELINE)
        for card in CARDS:
            of_base = _peaks(comparison, base, card, arguments, env)
            total = of_base.get(None)
            if total is None or total <= (gpus()[card].memory_bytes or 0):
                break
        for item in filter(is_open, items if total is not None else ()):
            of_item = of_base if item is base else _peaks(comparison, item, card, arguments, env)
            for stage, peak in of_item.items():
                planned[item.mode, engine, stage] = (peak, total or 1.0, card)
    return planned


def _peaks(
    comparison: PlannedComparison,
    item: ModeCandidate,
    card: str,
    arguments: Callable[[CliArgs], Sequence[str]],
    env: Mapping[str, str],
) -> dict[str | None, float]:
    """The peak of a candidate on `card` by stage, under None of the whole; empty: there is no plan."""
    sets = [text for text in item.args.sets if text not in comparison.limits.sets]
    args = replace(item.args, sets=sets).with_sets(["device=auto"])
    line = [sys.executable, "-m", "launcher", "plan", *arguments(args), "--json"]
    line += [f"--gpu={card}", f"--gpus={item.resolved.nproc}"]
    done = subprocess.run(line, capture_output=True, text=True, env=env)
    if done.returncode:
        return {}
    content: Any = json.loads(done.stdout)
    plans = {None: content} if "engine" in content else content
    totals = {name: plan["device_peak_bytes"]["total"] for name, plan in plans.items()}
    return {None: max(totals.values()), **totals}
