"""Console output about stages: plans, results and the next command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.base import exit_codes
from launcher.base.diagnostics import PROGRAM
from launcher.run.dry_run import plan_as_json, render_plan
from launcher.run.execute import next_command
from launcher.run.run_end import RunEnd
from launcher.run_folder import checkpoint_search, run_folder
from launcher.stages.pipeline import Pipeline
from training.logging.quantities import duration, real, size


def dry_run(pipeline: Pipeline, for_machines: bool) -> str:
    """The plan of each stage that is left, for --dry-run."""
    if for_machines:
        stages = [{"name": entry.name, **plan_as_json(ready)} for entry, ready in pipeline.left]
        return json.dumps({"folder": str(pipeline.folder), "stages": stages}, indent=2) + "\n"
    parts = [f"{pipeline.title(stage)}\n\n{render_plan(ready)}" for stage, ready in pipeline.left]
    return "\n".join([f"{pipeline.line}\n", *parts] if pipeline.line else parts)


def summary(end: RunEnd) -> str:
    """One line per stage, then the run folder and the next command."""
    if end.folder is None:
        return ""
    stages = end.result["stages"]
    width = max(len(stage["name"]) for stage in stages)
    lines = [f"  {stage['name']:<{width}}  {_stage(stage)}" for stage in stages]
    return "\n".join([*lines, _last_line(end, end.folder)])


def _stage(stage: Mapping[str, Any]) -> str:
    if stage["parameters"] is None:
        return str(stage["status"])
    content = [f"{stage['status']}, {stage['parameters']:,} parameters"]
    peak = stage["peak_memory_bytes"]
    kind = "device" if peak.get("device") is not None else "host"
    if peak.get(kind) is not None:
        content.append(f"peak {size(peak[kind])} on the {kind}")
    if (best := stage["best"]) is not None:
        content.append(f"{best['metric']} {real(best['value'])} at step {best['step']}")
    content.append(duration(stage["wall_s"]))
    return ", ".join(content)


def _last_line(end: RunEnd, folder: Path) -> str:
    where = f"run folder {folder}"
    stages = end.result["stages"]
    if end.exit_code == exit_codes.DONE:
        last = folder / stages[-1]["folder"]
        if checkpoint_search.newest_step(last) is None:
            return where
        if following := next_command(last, folder):
            return f"{where}; {following}"
        command = f"{PROGRAM} export {shlex.quote(str(last))} --format safetensors"
        return f"{where}; export the model: {command}"
    failed = [stage["folder"] for stage in stages if stage["status"] == "failed"]
    if failed:
        where += f"; log: {folder / failed[0] / run_folder.LOG}"
    return f"{where}; resume: {PROGRAM} resume {shlex.quote(str(folder))}"
