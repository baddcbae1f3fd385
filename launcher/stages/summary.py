"""Console output about stages: titles, results and the next command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.base import exit_codes
from launcher.base.diagnostics import PROGRAM
from launcher.config import selection
from launcher.config.check import why_ineffective
from launcher.config.options import FROM, STAGE
from launcher.config.provenance import MODE_LAYER, STAGED_MODE, Resolved
from launcher.config.schema import model_name, replaces_size, setting_infos
from launcher.run.dry_run import plan_as_json, render_plan
from launcher.run.execute import next_command
from launcher.run.run_end import RunEnd
from launcher.run_folder import checkpoint_search, run_folder
from launcher.stages.pipeline import Pipeline
from training.logging.quantities import duration, real, size

_REPEATED = ("data.", "model.", "eval.share", "train.seed")
"""Settings that the next stage needs as they were: they decide what is read and built."""
_NAMED = ("model.family", "model.size", "model.folder")
"""Settings that --model gives."""


def dry_run(pipeline: Pipeline, for_machines: bool) -> str:
    """The plan of each stage that is left, for --dry-run."""
    if for_machines:
        stages = [{"name": entry.name, **plan_as_json(ready)} for entry, ready in pipeline.left]
        return json.dumps({"folder": str(pipeline.folder), "stages": stages}, indent=2) + "\n"
    parts = [f"{pipeline.title(stage)}\n\n{render_plan(ready)}" for stage, ready in pipeline.left]
    return "\n".join([f"{pipeline.resume_line}\n", *parts] if pipeline.resume_line else parts)


def summary(end: RunEnd) -> str:
    """One line per stage, then the run folder and the next command."""
    if end.folder is None:
        return ""
    stages = end.result["stages"]
    width = max(len(stage["name"]) for stage in stages)
    lines = [f"  {stage['name']:<{width}}  {_stage(stage)}" for stage in stages]
    return "\n".join([*lines, _last_line(end, end.folder)])


def next_stage(resolved: Resolved, folder: Path | None) -> str | None:
    """The last line of a stage that was trained alone: the command of the next stage.

    It repeats what the user set of data and model. None: it is no such stage, no other one needs
    its weights, or the run saved none. Reads the disk.
    """
    settings = resolved.settings
    if folder is None or settings.mode != STAGED_MODE or len(settings.stages) != 1:
        return None
    [name] = settings.stages
    declared = selection.declared_stages(settings.model.family)
    following = [stage for stage in declared if name in stage.of and not stage.optional]
    if not following or checkpoint_search.newest_step(folder) is None:
        return None
    model = settings.model
    is_replaced = replaces_size(model.family, getattr(model, "pretrained", None))
    named = model.family if is_replaced else model_name(model)
    words = ["--model", named, "--mode", STAGED_MODE]
    words += _repeated(resolved, {stage.loads for stage in declared})
    words += [STAGE.flag, following[0].name, FROM.flag, str(folder)]
    return f"run folder {folder}; next stage, here or elsewhere: {PROGRAM} {shlex.join(words)}"


def _repeated(resolved: Resolved, loads: Collection[str | None]) -> Iterator[str]:
    """The arguments of settings that other stages need, as the user set them."""
    infos = setting_infos(resolved.settings.model.family)
    for key, setting in resolved.values.items():
        if not key.startswith(_REPEATED) or key in _NAMED or key in loads:
            continue
        # A setting of this stage alone has an effect only by one that the stage sets.
        layers = [resolved.values[other].origin.layer for other in infos[key].only_if]
        by_stage = MODE_LAYER in layers
        if by_stage and why_ineffective(resolved.values, key) is None:
            continue
        if setting.is_set_by_user:
            value = setting.value
            text = value if isinstance(value, str) else json.dumps(value)
            yield from ("--data", text) if key == "data.path" else ("--set", f"{key}={text}")


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
