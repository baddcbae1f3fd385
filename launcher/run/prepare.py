"""Preparation of a run: resolved settings, resume point, rank environment; and its dry run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from launcher.base import environment
from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, as_json, counted
from launcher.config import engine_options, errors, feature_checks, machine, render
from launcher.config.feature_checks import Target, targets
from launcher.config.machine import Machine
from launcher.config.provenance import CliArgs, Resolved
from launcher.config.schema import AUTO, config_of, model_name
from launcher.resume import find
from launcher.resume.decide import Decision, NothingLeft, decide
from launcher.resume.find import ResumeRequest
from launcher.run import affinity, restart
from launcher.run.experience import is_continual
from launcher.run.memory_check import check_memory
from launcher.run_folder import run_folder
from models.catalog import is_custom
from slurm.address import reachable
from slurm.environment import (
    Generation,
    InvalidEnvironment,
    RankEnvironment,
    read_generation,
    read_rank_environment,
)
from training.checkpoint import room
from training.settings import nested

T = TypeVar("T")


@dataclass(frozen=True)
class PreparedRun:
    """A run that can start: its settings and resume point, and where its ranks run."""

    resolved: Resolved
    place: RankEnvironment | None
    """Set by torchrun or srun: this process is one of their ranks."""
    out: Path | None
    name: str
    """Name of the run folder without --out."""
    threads: int | None
    """CPU threads per process; None: the default of torch."""
    resume: ResumeRequest | None = None
    """What to resume from."""
    line: str | None = None
    """Message about the resumed run; None: without --resume."""
    nothing_left: NothingLeft | None = None
    """The run was completed before; None: there is something to do."""
    is_trained: bool = False
    """The first data is trained on; what is left is continual learning."""
    separate: bool = False
    """Ranks run in processes of their own, even a single one."""
    generation: Generation | None = None
    """The generation of the Slurm job; None: no job."""

    @property
    def folder(self) -> Path:
        """The run folder; a number may be appended to a default name."""
        if self.out is not None:
            return self.out
        return self.resume.source if self.resume else run_folder.PARENT / self.name

    @property
    def starts_processes(self) -> bool:
        """Whether ranks run in processes started for them."""
        return self.separate or restart.is_supervised(self.resolved)

    @property
    def is_rank_0(self) -> bool:
        """Whether this process reports to the user."""
        return _is_rank_0(self.place)


def prepare_run(args: CliArgs, out: Path | None, diagnostics: list[Diagnostic]) -> PreparedRun:
    """Resolve and check everything; starts nothing. Reads settings files and JSON of runs.

    Raises SettingsError with `diagnostics` and all further errors.
    """
    diagnostics = list(diagnostics)
    place = _read_or_diagnose(_read_ranks, diagnostics)
    generation = _read_or_diagnose(read_generation, diagnostics)
    here = machine.detect_machine()
    if place is not None:
        here = here.for_ranks(place.local_size, place.cpus)
    ready = prepare_run_at(args, out, diagnostics, here, place, generation, chooses_engine=True)
    if ready.nothing_left is None and not args.force:
        ranks = place.local_size if place else ready.resolved.nproc
        count = parameters(ready.resolved)
        if lacking := list(check_memory(ready.resolved, here, count, ranks)):
            raise SettingsError(lacking)
    return ready


def prepare_run_at(
    args: CliArgs,
    out: Path | None,
    diagnostics: list[Diagnostic],
    here: Machine,
    place: RankEnvironment | None,
    generation: Generation | None = None,
    *,
    chooses_engine: bool = False,
) -> PreparedRun:
    """As `prepare_run`, for a given machine and rank environment, such as those of a cluster.

    `chooses_engine`: engine auto plans for this machine. Otherwise the number of processes decides.
    """
    diagnostics = list(diagnostics)
    if place is not None:
        diagnostics += _check_nproc(args, place)
    decision = None
    try:
        decision = _decide(args, out, here, place, chooses_engine)
        engine_options.deepspeed_layout(
            decision.resolved, decision.resolved.settings.engine.ds_config
        )
    except SettingsError as error:
        diagnostics += error.diagnostics
    if out is not None and _is_rank_0(place):
        diagnostics += _check_out(out, args, decision)
    if place is not None and decision is not None:
        diagnostics += _check_restarts(decision.resolved, place)
        diagnostics += feature_checks.check_launcher(place.source, decision.resolved.values)
    if diagnostics or decision is None:
        raise SettingsError(diagnostics)
    resolved, settings = decision.resolved, decision.resolved.settings
    ranks = place.local_size if place else resolved.nproc
    threads = affinity.threads(settings.engine.threads, here.cores, ranks, environment.variables())
    trains_continually = place is None and is_continual(resolved, decision.resume)
    keeps_torch_default = affinity.uses_torch_default(settings, ranks) and not trains_continually
    model, engine = model_name(settings.model), settings.engine.name
    name = run_folder.default_name(model, settings.mode, engine, datetime.now())
    ready = PreparedRun(
        resolved,
        place,
        out,
        name,
        None if keeps_torch_default else threads,
        *(decision.resume, decision.line),
        None if trains_continually else decision.nothing_left,
        trains_continually and decision.nothing_left is not None,
        generation=generation,
    )
    if inside := list(feature_checks.check_run_folder(ready.folder, resolved.values)):
        raise SettingsError(inside)
    return ready


def _decide(
    args: CliArgs,
    out: Path | None,
    here: Machine,
    place: RankEnvironment | None,
    chooses_engine: bool,
) -> Decision:
    world_size = place.world_size if place else None
    decision = decide(args, out, here, world_size)
    name = decision.resolved.values["engine.name"]
    if not chooses_engine or all(value != AUTO for value, _ in name.replaced):
        return decision
    from launcher.plan import auto
    from launcher.plan.target import Described

    nodes = place.world_size // place.local_size if place else 1
    return auto.decide_engine(args, out, Described(here, nodes), world_size)


def _is_rank_0(place: RankEnvironment | None) -> bool:
    return place is None or place.rank == 0


def _read_ranks(environ: Mapping[str, str]) -> RankEnvironment | None:
    place = read_rank_environment(environ)
    return reachable(place, environ) if place else None


def _read_or_diagnose(
    read: Callable[[Mapping[str, str]], T | None], diagnostics: list[Diagnostic]
) -> T | None:
    """What `read` finds in the environment; None: nothing, or it is invalid."""
    try:
        return read(environment.variables())
    except InvalidEnvironment as error:
        diagnostics.append(
            Diagnostic(error.message, where="the environment", allowed=error.allowed)
        )
        return None


def _check_out(out: Path, args: CliArgs, decision: Decision | None) -> list[Diagnostic]:
    """Errors if a run cannot be written to `out`, unless it contains the resumed run."""
    if args.resume is not None:
        if decision is None:
            return []
        source = decision.resume.source if decision.resume else None
        if source is not None and run_folder.is_run_folder(source) and find.is_same(source, out):
            return []
    return run_folder.writing_errors(out, f"--out {out}", replaces_starts=True)


def _check_nproc(args: CliArgs, place: RankEnvironment) -> list[Diagnostic]:
    option, text = args.options.get("engine.nproc", ("", str(place.local_size)))
    if text == str(place.local_size):
        return []
    return [
        Diagnostic(
            f"{option} {text}, but {place.source} started {place.local_size} on this machine",
            key="engine.nproc",
            value=text,
            where=f"{option} {text}",
            allowed=f"no {option} under {place.source}",
        )
    ]


def _check_restarts(resolved: Resolved, place: RankEnvironment) -> list[Diagnostic]:
    key = "engine.max_restarts"
    if not (value := resolved.values[key].value):
        return []
    why = f"{key} {value}, but only {place.source}, which started the processes, can restart them"
    allowed = f"0 under {place.source}; a second start with  --resume auto  resumes"
    return [errors.about(resolved.values, key, why, allowed=allowed)]


def parameters(resolved: Resolved) -> int | None:
    """Number of parameters with these settings; None: unknown before the model is built."""
    model = resolved.settings.model
    if getattr(model, "pretrained", None) is not None or resolved.settings.stages:
        return None  # a stage builds only its part
    if (size := config_of(model.family).SIZES.get(getattr(model, "size", None))) is None:
        return None
    if is_custom(model.family):
        return int(size.parameters)
    # The settings may change the size: channels, layers, the vocabulary.
    count: int | None = getattr(model, "parameters", size.parameters)
    return count


def least_room_bytes(resolved: Resolved) -> int:
    """The room that the run needs at least; the run itself knows more, and checks that again."""
    save = resolved.settings.save
    saves = save.required and (save.last or save.every or save.keep_best)
    return room.least_bytes(parameters(resolved)) if saves else 0


def first_line(ready: PreparedRun) -> str:
    """The first line for the user, before torch is imported."""
    settings = ready.resolved.settings
    chosen = ready.resolved.chosen
    before = [line for line in (ready.line, chosen and chosen.line) if line]
    return "".join(f"{line}\n" for line in before) + (
        f"{model_name(settings.model)}, mode {settings.mode}, "
        f"engine {settings.engine.name} on {_where(ready)}; run folder {ready.folder}"
    )


def render_plan(ready: PreparedRun) -> str:
    """The text of --dry-run."""
    changed = {
        key: value
        for key, value in ready.resolved.values.items()
        if value.replaced and value.value != value.replaced[-1][0]
    }
    settings = render.render_tree(changed, history=False)
    title = f"settings that differ from the defaults; all settings: {PROGRAM} explain"
    return "\n".join([*_head(ready), "", title, settings])


def plan_as_json(ready: PreparedRun) -> dict[str, Any]:
    """The JSON of --dry-run."""
    resolved = ready.resolved
    return {
        "settings": nested({key: value.value for key, value in resolved.values.items()}),
        "batching": asdict(resolved.batching),
        "device": resolved.device,
        "parameters": parameters(resolved),
        "folder": str(ready.folder),
        "resume": None if ready.resume is None else ready.resume.as_json(),
        "processes": _processes(ready),
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


def _head(ready: PreparedRun) -> Iterator[str]:
    settings, solved = ready.resolved.settings, ready.resolved.batching
    count = parameters(ready.resolved)
    size = f", {count:,} parameters" if count is not None else ""
    yield f"model    {model_name(settings.model)}{size}"
    yield f"mode     {settings.mode}"
    yield f"engine   {settings.engine.name} on {_where(ready)}"
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
    yield f"folder   {ready.folder}"
    if ready.line:
        yield f"resume   {ready.line}"
    for change in ready.resume.changes if ready.resume else ():
        yield f"changed  {change}"
    for note in ready.resolved.notes:
        yield f"note     {note}"


def _to_fetch(settings: Any) -> list[Target]:
    return targets(settings.download) if settings.download.fetch else []


def _where(ready: PreparedRun) -> str:
    resolved = ready.resolved
    threads = f", {counted(ready.threads, 'thread')} each" if ready.threads else ""
    if ready.place is not None:
        count = counted(resolved.batching.world_size, "process")
        return f"{resolved.device}, one of {count} started by {ready.place.source}{threads}"
    if not ready.starts_processes:
        return f"{resolved.device}, in this process"
    return f"{resolved.device}, {counted(resolved.nproc, 'process')}{threads}"


def _length(settings: Any) -> str:
    epochs, most = settings.train.epochs, settings.train.max_steps
    passes = "" if epochs is None else f"{epochs:g} epoch" + ("" if epochs == 1 else "s")
    if most is None:
        return passes
    return counted(most, "step") + (f", at most {passes}" if passes else "")


def _processes(ready: PreparedRun) -> list[Mapping[str, Any]]:
    """The ranks this program would start; none under torchrun or srun."""
    if ready.place is not None:
        return []
    facts = {"started": ready.starts_processes, "threads": ready.threads}
    return [{"rank": rank, **facts} for rank in range(ready.resolved.nproc)]
