"""What a prepared run would do, for --dry-run: as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
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
    resolved, facts = ready.resolved, {"started": ready.starts_processes, "threads": ready.threads}
    # The ranks that this program would start: none under torchrun or srun.
    ranks = range(resolved.nproc if ready.launched is None else 0)
    return {
        "settings": nested({key: value.value for key, value in resolved.values.items()}),
        "batching": asdict(resolved.batching),
        "device": resolved.device,
        "parameters": parameters(resolved),
        "folder": str(ready.destination),
        "resume": None if ready.resume is None else ready.resume.as_json(),
        "processes": [{"rank": rank, **facts} for rank in ranks],
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
    lines = [("model", f"{model_name(settings.model)}{size}"), ("mode", settings.mode)]
    lines.append(("engine", f"{settings.engine.name} on {processes_of(ready)}"))
    if (path := getattr(settings.data, "path", None)) is not None:
        lines.append(("data", path))
    lines += [("fetch", f"{target.file.url} as {target.path}") for target in _to_fetch(settings)]
    product = f"micro-batch {solved.micro_batch} × accumulation {solved.accumulation}"
    product += f" × {counted(solved.world_size, 'process')}"
    lines.append(("step", f"{solved.global_batch} samples = {product}"))
    limits = [(settings.train.max_steps, "steps"), (settings.train.epochs, "epochs")]
    lines.append(("length", ", at most ".join(f"{n:g} {unit}" for n, unit in limits if n is not None)))
    lines.append(("folder", str(ready.destination)))
    if ready.line:
        lines.append(("resume", ready.line))
    lines += [("changed", change) for change in (ready.resume.changes if ready.resume else ())]
    lines += [("note", note) for note in _notes(ready.resolved)]
    return (f"{title:<7}  {text}" for title, text in lines)


def _notes(resolved: Resolved) -> list[str]:
    """The notes of the run, and what may change once its data is read."""
    note = expected(resolved)
    return [*resolved.notes, *([note] if note else [])]


def _to_fetch(settings: Any) -> list[DownloadTarget]:
    if not settings.download.fetch:
        return []
    from launcher.config.feature_checks import targets  # for the runs that download their data

    return targets(settings.download)
