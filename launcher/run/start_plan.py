"""What a start would do: shown before it happens, and all that a dry run does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, as_json, counted
from launcher.config import render
from launcher.config.declared_files import Target, targets
from launcher.config.provenance import Resolved
from launcher.config.schema import config_of, model_name
from launcher.resume.find import ResumeRequest
from launcher.run import restart
from training.settings import nested


@dataclass(frozen=True)
class Plan:
    """A run that is decided and not started."""

    resolved: Resolved
    folder: Path
    threads: int | None
    """CPU threads a process; None: what torch takes by itself."""
    place: str | None
    """Who started this process as one of many: torchrun or srun; None: nobody."""
    resume: ResumeRequest | None = None
    """What it goes on from."""
    line: str | None = None
    """What is told of that; None: nobody asked to go on."""
    apart: bool = False
    """Its ranks run in processes of their own, also where it is only one."""

    @property
    def starts(self) -> bool:
        """Whether processes are started for it."""
        return self.apart or restart.is_supervised(self.resolved)


def parameters(resolved: Resolved) -> int | None:
    """Weights of the model by its size; None: not known before it is read or built."""
    model = resolved.settings.model
    if getattr(model, "pretrained", None) is not None or resolved.settings.stages:
        return None  # a stage builds only its part
    size = config_of(model.family).SIZES.get(getattr(model, "size", None))
    return None if size is None else int(size.parameters)


def first_line(plan: Plan) -> str:
    """What is said at once, while torch is loaded; the run tells the rest of itself."""
    settings = plan.resolved.settings
    going_on = f"{plan.line}\n" if plan.line else ""
    return going_on + (
        f"{model_name(settings.model)}, mode {settings.mode}, "
        f"engine {settings.engine.name} on {_where(plan)}; run folder {plan.folder}"
    )


def text(plan: Plan) -> str:
    """All of it, for --dry-run."""
    changed = {
        key: value
        for key, value in plan.resolved.values.items()
        if value.replaced and value.value != value.replaced[-1][0]
    }
    settings = render.render_tree(changed, history=False)
    title = f"settings that differ from the built-in ones; all of them: {PROGRAM} explain"
    return "\n".join([*_head(plan), "", title, settings])


def plan_json(plan: Plan) -> dict[str, Any]:
    """The same for machines."""
    resolved = plan.resolved
    return {
        "settings": nested({key: value.value for key, value in resolved.values.items()}),
        "batching": asdict(resolved.batching),
        "device": resolved.device,
        "parameters": parameters(resolved),
        "folder": str(plan.folder),
        "resume": None if plan.resume is None else plan.resume.as_json(),
        "processes": _processes(plan),
        "fetch": [
            {
                "url": str(target.file.url),
                "path": str(target.path),
                "is_there": target.path.exists(),
            }
            for target in _to_fetch(resolved.settings)
        ],
        "notes": list(resolved.notes),
        "warnings": as_json(resolved.warnings),
    }


def _head(plan: Plan) -> Iterator[str]:
    settings, solved = plan.resolved.settings, plan.resolved.batching
    count = parameters(plan.resolved)
    size = f", {count:,} parameters" if count is not None else ""
    yield f"model    {model_name(settings.model)}{size}"
    yield f"mode     {settings.mode}"
    yield f"engine   {settings.engine.name} on {_where(plan)}"
    if (path := getattr(settings.data, "path", None)) is not None:
        yield f"data     {path}"
    for target in _to_fetch(settings):
        there = ", which is there" if target.path.exists() else ""
        yield f"fetch    {target.file.url} as {target.path}{there}"
    yield (
        f"step     {solved.global_batch} samples = micro-batch {solved.micro_batch} × "
        f"accumulation {solved.accumulation} × {counted(solved.world_size, 'process')}"
    )
    yield f"length   {_length(settings)}"
    yield f"folder   {plan.folder}"
    if plan.line:
        yield f"resume   {plan.line}"
    for change in plan.resume.changes if plan.resume else ():
        yield f"changed  {change}"
    for note in plan.resolved.notes:
        yield f"filled in  {note}"


def _to_fetch(settings: Any) -> list[Target]:
    return targets(settings.download) if settings.download.fetch else []


def _where(plan: Plan) -> str:
    resolved = plan.resolved
    threads = f", {counted(plan.threads, 'thread')} each" if plan.threads else ""
    if plan.place is not None:
        count = counted(resolved.batching.world_size, "process")
        return f"{resolved.device}, one of {count} that {plan.place} started{threads}"
    if not plan.starts:
        return f"{resolved.device}, in this process"
    return f"{resolved.device}, {counted(resolved.nproc, 'process')}{threads}"


def _length(settings: Any) -> str:
    epochs = f"{settings.train.epochs:g} epoch" + ("" if settings.train.epochs == 1 else "s")
    if settings.train.max_steps is None:
        return epochs
    return f"{counted(settings.train.max_steps, 'step')}, or {epochs} if those are fewer"


def _processes(plan: Plan) -> list[Mapping[str, Any]]:
    """The ranks that would be started here; none where torchrun or srun has done that."""
    if plan.place is not None:
        return []
    if not plan.starts:
        return [{"rank": 0, "started": False, "threads": plan.threads}]
    return [
        {"rank": rank, "started": True, "threads": plan.threads}
        for rank in range(plan.resolved.nproc)
    ]
