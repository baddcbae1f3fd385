"""What a prepared run would do, for --dry-run: as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from gearshift.launcher.base.diagnostics import PROGRAM, Diagnostic, as_json
from gearshift.launcher.config import render
from gearshift.launcher.config.fitted_batch import expected
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.config.schema import model_name
from gearshift.launcher.run.prepare import parameters, processes_of
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.training.callbacks.base import Json
from gearshift.training.settings import nested


def render_plan(ready: RunPlan) -> str:
    """The text of --dry-run."""
    resolved = ready.resolved
    settings = resolved.settings
    facts = plan_as_json(ready, ())
    model = model_name(settings.model)
    if facts["parameters"]:
        model += f", {facts['parameters']:,} parameters"
    rows = [
        ("model", model),
        ("mode", settings.mode),
        ("engine", f"{settings.engine.name} on {processes_of(ready)}"),
        ("data", getattr(settings.data, "path", None)),
        *[("fetch", f"{file['url']} as {file['path']}") for file in facts["fetch"]],
        ("step", f"{resolved.batching}: micro-batch × accumulation × processes"),
        ("folder", facts["folder"]),
        ("resume", ready.line),
        *[("changed", change) for change in (ready.resume.changes if ready.resume else ())],
        *[("note", note) for note in facts["notes"]],
    ]
    lines = [f"{title:<7}  {text}" for title, text in rows if text]
    changed = {}
    for key, setting in resolved.values.items():
        if setting.replaced and setting.value != setting.replaced[-1][0]:
            changed[key] = setting
    title = f"settings that differ from the defaults; all settings: {PROGRAM} explain"
    return "\n".join([*lines, "", title, render.render_tree(changed, history=False)])


def plan_as_json(ready: RunPlan, warnings: Sequence[Diagnostic]) -> Json:
    """The JSON of --dry-run, with the warnings of the run, whose fixes are commands."""
    resolved = ready.resolved
    later = expected(resolved)  # what may change once its data is read
    return {
        "settings": nested({key: setting.value for key, setting in resolved.values.items()}),
        "batching": asdict(resolved.batching),
        "device": resolved.device,
        "parameters": parameters(resolved),
        "folder": ready.destination,
        "resume": asdict(ready.resume) if ready.resume else None,
        "nproc": resolved.nproc,
        "threads": ready.threads,
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
                "path": target.path,
                "is_there": target.path.exists(),
            }
