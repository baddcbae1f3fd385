"""What a prepared run would do, for --dry-run: as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import PROGRAM, as_json, counted
from launcher.config import render
from launcher.config.batching import expected
from launcher.config.schema import model_name
from launcher.run.prepare import parameters, processes_of
from launcher.run_folder.run_plan import RunPlan
from training.settings import nested

if TYPE_CHECKING:
    from launcher.config.feature_checks import DownloadTarget
    from launcher.config.provenance import Resolved


def render_plan(ready: RunPlan) -> str:
    """The text of --dry-run."""
    changed = {
        key: value
        for key, value in ready.resolved.values.items()
        if value.replaced and value.value != value.replaced[-1][0]
    }
    settings = render.render_tree(changed, history=False)
    title = f"settings that differ from the defaults; all settings: {PROGRAM} explain"
    return "\n".join([*_head(ready), "", title, settings])


def plan_as_json(ready: RunPlan) -> dict[str, Any]:
    """The JSON of --dry-run."""
    resolved = ready.resolved
    return {
        "settings": nested({key: value.value for key, value in resolved.values.items()}),
        "batching": asdict(resolved.batching),
        "device": resolved.device,
        "parameters": parameters(resolved),
        "folder": str(ready.destination),
        "resume": None if ready.resume is None else ready.resume.as_json(),
        "processes": _processes(ready),
        "fetch": [
            {"url": str(target.file.url), "path": str(target.path), "is_there": target.path.exists()}
            for target in _to_fetch(resolved.settings)
        ],
        "notes": _notes(resolved),
        "warnings": as_json(resolved.warnings),
    }


def _head(ready: RunPlan) -> Iterator[str]:
    settings, solved = ready.resolved.settings, ready.resolved.batching
    count = parameters(ready.resolved)
    size = f", {count:,} parameters" if count is not None else ""
    yield f"model    {model_name(settings.model)}{size}"
    yield f"mode     {settings.mode}"
    yield f"engine   {settings.engine.name} on {processes_of(ready)}"
    if (path := getattr(settings.data, "path", None)) is not None:
        yield f"data     {path}"
    for target in _to_fetch(settings):
        exists = " (exists)" if target.path.exists() else ""
        yield f"fetch    {target.file.url} as {target.path}{exists}"
    yield (
        f"step     {solved.global_batch} samples = micro-batch {solved.micro_batch} × "
        f"accumulation {solved.accumulation} × {counted(solved.world_size, 'process')}"
    )
    yield f"length   {_length(settings)}"
    yield f"folder   {ready.destination}"
    if ready.line:
        yield f"resume   {ready.line}"
    for change in ready.resume.changes if ready.resume else ():
        yield f"changed  {change}"
    for note in _notes(ready.resolved):
        yield f"note     {note}"


def _notes(resolved: Resolved) -> list[str]:
    """The notes of the run, and what may change once its data is read."""
    note = expected(resolved)
    return [*resolved.notes, *([note] if note else [])]


def _to_fetch(settings: Any) -> list[DownloadTarget]:
    if not settings.download.fetch:
        return []
    from launcher.config.feature_checks import targets  # for the runs that download their data

    return targets(settings.download)


def _length(settings: Any) -> str:
    epochs, max_steps = settings.train.epochs, settings.train.max_steps
    passes = "" if epochs is None else f"{epochs:g} epoch" + ("" if epochs == 1 else "s")
    if max_steps is None:
        return passes
    return counted(max_steps, "step") + (f", at most {passes}" if passes else "")


def _processes(ready: RunPlan) -> list[Mapping[str, Any]]:
    """The ranks this program would start; none under torchrun or srun."""
    if ready.launched is not None:
        return []
    facts = {"started": ready.starts_processes, "threads": ready.threads}
    return [{"rank": rank, **facts} for rank in range(ready.resolved.nproc)]
