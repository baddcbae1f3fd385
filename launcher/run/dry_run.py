"""What a prepared run would do, for --dry-run: as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from gearshift.launcher.base.diagnostics import PROGRAM, Diagnostic, as_json, counted
from gearshift.launcher.config import render
from gearshift.launcher.config.fitted_batch import expected
from gearshift.launcher.config.provenance import Batching, Resolved
from gearshift.launcher.config.schema import model_name
from gearshift.launcher.run.prepare import parameters, processes_of
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.training.callbacks.base import Json
from gearshift.training.settings import nested


def render_plan(ready: RunPlan) -> str:
    """The text of --dry-run."""
    facts = plan_as_json(ready, ready.resolved.warnings)
    settings = ready.resolved.settings
    rows = [
        ("model", _model(settings, facts["parameters"])),
        ("mode", settings.mode),
        ("engine", f"{settings.engine.name} on {processes_of(ready)}"),
        ("data", getattr(settings.data, "path", None)),
    ]
    for file in facts["fetch"]:
        rows.append(("fetch", f"{file['url']} as {file['path']}"))
    rows += [
        ("step", _step(ready.resolved.batching)),
        ("length", _length(settings)),
        ("folder", facts["folder"]),
        ("resume", ready.line or None),
    ]
    if ready.resume:
        rows += [("changed", change) for change in ready.resume.changes]
    rows += [("note", note) for note in facts["notes"]]
    lines = [f"{title:<7}  {text}" for title, text in rows if text is not None]
    changed = {}
    for key, setting in ready.resolved.values.items():
        if setting.replaced and setting.value != setting.replaced[-1][0]:
            changed[key] = setting
    title = f"settings that differ from the defaults; all settings: {PROGRAM} explain"
    return "\n".join([*lines, "", title, render.render_tree(changed, history=False)])


def _model(settings: Any, parameters: int | None) -> str:
    name = model_name(settings.model)
    return f"{name}, {parameters:,} parameters" if parameters else name


def _step(batching: Batching) -> str:
    product = f"micro-batch {batching.micro_batch} × accumulation {batching.accumulation}"
    processes = counted(batching.world_size, "process")
    return f"{batching.global_batch} samples = {product} × {processes}"


def _length(settings: Any) -> str:
    lengths = {"steps": settings.train.max_steps, "epochs": settings.train.epochs}
    limits = [f"{count:g} {unit}" for unit, count in lengths.items() if count]
    if settings.train.time is not None:
        limits.insert(0, f"for {settings.train.time}")
    return ", at most ".join(limits)


def plan_as_json(ready: RunPlan, warnings: Sequence[Diagnostic]) -> Json:
    """The JSON of --dry-run, with the warnings of the run, whose fixes are commands."""
    resolved = ready.resolved
    processes = []
    if not ready.launched:  # else torchrun or srun has started them
        for rank in range(resolved.nproc):
            processes.append(
                {"rank": rank, "started": ready.starts_processes, "threads": ready.threads}
            )
    resume = None
    if ready.resume:
        resume = {**asdict(ready.resume), "source": str(ready.resume.source)}
    later = expected(resolved)  # what may change once its data is read
    return {
        "settings": nested({key: setting.value for key, setting in resolved.values.items()}),
        "batching": asdict(resolved.batching),
        "device": resolved.device,
        "parameters": parameters(resolved),
        "folder": str(ready.destination),
        "resume": resume,
        "processes": processes,
        "fetch": list(_fetched(resolved)),
        "notes": [*resolved.notes, *filter(None, [later])],
        "warnings": as_json(warnings),
    }


def _fetched(resolved: Resolved) -> Iterator[Json]:
    """The files that the run fetches."""
    download = resolved.settings.download
    if not download.fetch:
        return
    from gearshift.launcher.config import feature_checks  # for the runs that download their data

    if feature_checks.is_requested(resolved.values):
        for target in feature_checks.targets(download):
            yield {
                "url": str(target.file.url),
                "path": str(target.path),
                "is_there": target.path.exists(),
            }
