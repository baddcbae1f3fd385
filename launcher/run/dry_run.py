"""What a prepared run would do, for --dry-run: as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gearshift.launcher.base.diagnostics import PROGRAM, as_json, counted
from gearshift.launcher.config import render
from gearshift.launcher.config.batching import expected
from gearshift.launcher.config.schema import model_name
from gearshift.launcher.run.prepare import parameters, processes_of
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.training.settings import nested


def render_plan(ready: RunPlan) -> str:
    """The text of --dry-run."""
    facts = plan_as_json(ready)
    settings = ready.resolved.settings
    solved = ready.resolved.batching
    count = facts["parameters"]
    limits = {"steps": settings.train.max_steps, "epochs": settings.train.epochs}
    product = f"micro-batch {solved.micro_batch} × accumulation {solved.accumulation}"
    product += f" × {counted(solved.world_size, 'process')}"
    rows = [
        (
            "model",
            model_name(settings.model) + ("" if count is None else f", {count:,} parameters"),
        ),
        ("mode", settings.mode),
        ("engine", f"{settings.engine.name} on {processes_of(ready)}"),
        ("data", getattr(settings.data, "path", None)),
        *(("fetch", f"{file['url']} as {file['path']}") for file in facts["fetch"]),
        ("step", f"{solved.global_batch} samples = {product}"),
        (
            "length",
            ", at most ".join(f"{n:g} {unit}" for unit, n in limits.items() if n is not None),
        ),
        ("folder", facts["folder"]),
        ("resume", ready.line or None),
        *(("changed", change) for change in (ready.resume.changes if ready.resume else ())),
        *(("note", note) for note in facts["notes"]),
    ]
    changed = {
        key: value
        for key, value in ready.resolved.values.items()
        if value.replaced and value.value != value.replaced[-1][0]
    }
    head = [f"{title:<7}  {text}" for title, text in rows if text is not None]
    title = f"settings that differ from the defaults; all settings: {PROGRAM} explain"
    return "\n".join([*head, "", title, render.render_tree(changed, history=False)])


def plan_as_json(ready: RunPlan) -> dict[str, Any]:
    """The JSON of --dry-run."""
    resolved = ready.resolved
    facts = {"started": ready.starts_processes, "threads": ready.threads}
    # The ranks that this program would start: none under torchrun or srun.
    ranks = range(resolved.nproc if ready.launched is None else 0)
    fetched: list[dict[str, Any]] = []
    if resolved.settings.download.fetch:
        from gearshift.launcher.config import (
            feature_checks,
        )  # for the runs that download their data

        is_requested = feature_checks.is_requested(resolved.values)
        for target in feature_checks.targets(resolved.settings.download) if is_requested else ():
            url = str(target.file.url)
            path = target.path
            fetched.append({"url": url, "path": str(path), "is_there": path.exists()})
    later = expected(resolved)  # what may change once its data is read
    return {
        "settings": nested({key: value.value for key, value in resolved.values.items()}),
        "batching": asdict(resolved.batching),
        "device": resolved.device,
        "parameters": parameters(resolved),
        "folder": str(ready.destination),
        "resume": ready.resume and {**asdict(ready.resume), "source": str(ready.resume.source)},
        "processes": [{"rank": rank, **facts} for rank in ranks],
        "fetch": fetched,
        "notes": [*resolved.notes, *([later] if later else [])],
        "warnings": as_json(resolved.warnings),
    }
