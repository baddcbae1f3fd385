"""Preparation of a run: resolved settings, resume point, rank environment, memory check."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gearshift.engines.catalog import ENGINES, Entry, missing
from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import (
    PROGRAM,
    Diagnostic,
    SettingsError,
    collecting,
    counted,
)
from gearshift.launcher.config import adapt, machine
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.provenance import CliArgs, Resolved
from gearshift.launcher.config.resolve import resolve
from gearshift.launcher.config.schema import config_of, model_name
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.models.catalog import is_custom
from gearshift.slurm.environment import InvalidEnvironment, RankEnvironment, is_launched
from gearshift.training.logging.encoding import size

_FREE = 0.03
"""The share of main memory that a run leaves free, or it is refused."""
_FILES = 4096
"""Files that a rank may have open: pipes and shared batches, eight for each loader worker."""
_ENGINE = "engine.name"


def prepare_run(args: CliArgs, out: Path | None, diagnostics: Sequence[Diagnostic] = ()) -> RunPlan:
    """Resolve and check everything; starts nothing. Reads settings files and JSON of runs.

    Raises SettingsError with `diagnostics` and all other errors; about memory if there is no other.
    """
    invalid = list(diagnostics)
    variables = environment.variables()
    launched = None
    generation = None
    if is_launched(variables):
        from gearshift.slurm.address import reachable
        from gearshift.slurm.variables import read_generation, read_rank_environment

        try:
            generation = read_generation(variables)
            launched = read_rank_environment(variables)
            if launched:
                launched = reachable(launched)
        except InvalidEnvironment as error:
            where = "the environment"
            invalid.append(Diagnostic(error.message, where=where, allowed=error.allowed))
    here = machine.detect_machine()
    if launched:
        here = here.for_ranks(launched.local_size, launched.cpus)
    with collecting(invalid):
        plan = prepare_run_at(args, out, here, launched, is_here=True)
    if plan.nothing_left is None and not args.force:
        ranks = launched.local_size if launched else plan.resolved.nproc
        lack = memory_lack(plan.resolved, here, parameters(plan.resolved), ranks)
        if lack:
            raise SettingsError([lack])
    return replace(plan, generation=generation)


def prepare_run_at(
    args: CliArgs,
    out: Path | None,
    here: Machine,
    launched: RankEnvironment | None,
    *,
    is_here: bool = False,
) -> RunPlan:
    """As `prepare_run`, for a given machine and rank environment, such as those of a cluster.

    `is_here`: engine auto plans for this machine. Otherwise the number of processes decides.
    """
    diagnostics: list[Diagnostic] = []
    decision = None
    world_size = launched.world_size if launched else None
    try:
        if args.resume is None and not args.reset:  # an ordinary start needs no other rules
            decision = RunPlan(resolve(args, here, world_size))
        else:
            from gearshift.launcher.run_folder.resume_rules import decide

            decision = decide(args, out, here, world_size)
        if is_here and _ENGINE in decision.resolved.keys.auto:
            from gearshift.launcher.plan import auto
            from gearshift.launcher.plan.target import Described

            nodes = launched.world_size // launched.local_size if launched else 1
            decision = auto.decide_engine(args, out, Described(here, nodes), world_size)
        adapt.deepspeed_layout(decision.resolved, decision.resolved.settings.engine)
    except SettingsError as error:
        diagnostics += error.diagnostics

    # Other ranks may look when rank 0 has created the folder already.
    is_rank_0 = launched is None or launched.rank == 0
    if out and is_rank_0 and (decision or args.resume is None):
        resume = decision.resume if decision else None
        is_own = resume and resume.source.resolve() == out.resolve()
        if not is_own or not run_folder.is_run_folder(out):  # else it contains the resumed run
            diagnostics += run_folder.writing_errors(out, f"--out {out}")
    if launched and decision:
        from gearshift.launcher.config import feature_checks  # of ranks of torchrun and srun

        values = decision.resolved.values
        diagnostics += feature_checks.check_processes(values, launched.local_size, launched.source)
    if diagnostics or not decision:
        raise SettingsError(diagnostics)

    resolved = decision.resolved
    settings = resolved.settings
    is_continual = launched is None and settings.continual.enabled
    if not launched and decision.resume and not is_continual:
        from gearshift.launcher.run import experience

        is_continual = experience.is_left(decision.resume)
    _allow_open_files()
    ranks = launched.local_size if launched else resolved.nproc
    plan = replace(
        decision,
        launched=launched,
        out=out,
        name=name_of(settings),
        threads=threads(settings, here.cores, ranks, is_continual),
        nothing_left=None if is_continual else decision.nothing_left,
        is_continual=is_continual,
    )
    if settings.continual.enabled:
        from gearshift.launcher.config import feature_checks

        feature_checks.check_run_folder(plan.destination, resolved.values)
        if plan.resume:
            from gearshift.launcher.run import experience

            enabled = resolved.values["continual.enabled"]
            experience.check_continual(plan.resume, enabled.origin.where)
    return plan


def _allow_open_files() -> None:
    """Raise the soft limit of this process, often 256 or 1024, as far as it can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if resource.RLIM_INFINITY != soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def threads(settings: Any, cores: int, ranks: int, is_continual: bool) -> int | None:
    """Threads of each of `ranks` ranks on `cores`.

    They are engine.threads, OMP_NUM_THREADS, or an even share. OMP_NUM_THREADS=1 is ignored:
    torchrun sets it by default, and an optimizer on the CPU is then about ten times slower. None:
    the default of torch, for a run in the launcher's own process.
    """
    engine = settings.engine
    if engine.threads:
        return int(engine.threads)
    if ranks == 1 and not engine.max_restarts and not is_continual:
        return None
    count = environment.variables().get(environment.THREADS, "")
    if count.isdigit() and int(count) > 1:
        return int(count)
    return max(1, cores // ranks)


def name_of(settings: Any) -> str:
    """`language-small-fast-zero2-20250131-142501`: the run folder without --out."""
    model = model_name(settings.model).replace(":", "-")
    return f"{model}-{settings.mode}-{settings.engine.name}-{datetime.now():%Y%m%d-%H%M%S}"


def parameters(resolved: Resolved) -> int | None:
    """Number of parameters with these settings; None: unknown before the model is built."""
    settings = resolved.settings
    model = settings.model
    if getattr(model, "pretrained", None) is not None or settings.stages:
        return None  # a stage builds only its part
    size = config_of(model.family).SIZES.get(getattr(model, "size", None))
    if not size:
        return None
    # The settings may change the size: channels, layers, the vocabulary.
    changed = None if is_custom(model.family) else model
    count: int | None = getattr(changed, "parameters", size.parameters)
    return count


def first_line(ready: RunPlan) -> str:
    """The first line for the user, before torch is imported."""
    settings = ready.resolved.settings
    chosen = ready.resolved.chosen
    run = f"{model_name(settings.model)}, mode {settings.mode}, engine {settings.engine.name}"
    line = f"{run} on {processes_of(ready)}; run folder {ready.destination}"
    return "\n".join(filter(None, [ready.line, chosen.line if chosen else None, line]))


def processes_of(ready: RunPlan) -> str:
    """`cuda, 2 processes, 4 threads each`."""
    resolved = ready.resolved
    parts = [resolved.device, counted(resolved.world_size, "process")]
    if ready.launched:
        parts[1] += f" of {ready.launched.source}"
    if ready.threads:
        parts.append(f"{counted(ready.threads, 'thread')} each")
    return ", ".join(parts)


def memory_lack(
    resolved: Resolved, here: Machine, parameters: int | None, ranks_per_node: int
) -> Diagnostic | None:
    """An error if the state of training alone does not fit this machine, whatever the batch.

    Arithmetic from the number of `parameters` (None: unknown, and nothing is checked) and the
    placement of the engine. What activations need is found by `plan`, `--dry-run` and engine auto.
    """
    if parameters is None:
        return None
    settings = resolved.settings
    world_size = resolved.world_size
    limit = None
    if resolved.device == "cuda":
        limit = here.tensor_bytes(ranks_per_node, world_size // ranks_per_node)

    def lacks(engine: Entry) -> list[str]:
        """Each kind of memory of which there is too little: what is needed, and what there is."""
        is_16_bit = engine.shards_parameters and settings.precision not in ("fp32", "tf32")
        needed = engine.placed(settings.engine.offload).state_bytes(
            parameters, world_size, 2 if is_16_bit else 4, settings.optim.least_bytes, parameters
        )
        host = needed.host
        if resolved.device == "cpu":
            host += needed.device
        host *= ranks_per_node
        lacking = []
        if limit is not None and needed.device > limit:
            lacking.append(f"{size(needed.device)} of {size(limit)} on a GPU")
        if here.ram_bytes is not None and host > here.ram_bytes * (1 - _FREE):
            ranks = counted(ranks_per_node, "process")
            lacking.append(f"{size(host)} of {size(here.ram_bytes)} in main memory ({ranks})")
        return lacking

    name = settings.engine.name
    lacking = lacks(ENGINES[name])
    if not lacking:
        return None
    others = (other for other in ENGINES.values() if not other.processes and not missing(other))
    fitting = next((other.name for other in others if not lacks(other)), None)
    return Diagnostic(
        f"{model_name(settings.model)} does not fit under engine {name}: weights, gradients and "
        f"optimizer state take {'; '.join(lacking)}",
        key=_ENGINE,
        value=name,
        where=resolved.values[_ENGINE].origin.where,
        allowed=f"an engine and a size that fit, see  {PROGRAM} plan; to start anyway: --force",
        fix=fitting and f"--engine {fitting}",
    )
