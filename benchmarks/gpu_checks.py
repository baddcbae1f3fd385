"""The parts of benchmarks.gpu that come before speed: equal gradients, and a known GPU memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import ballast
from benchmarks.isolated import Report
from benchmarks.workload import SEED, Work
from engines.base import OptimizerSpec, Options, World
from engines.catalog import ENGINES, build_engine, missing
from engines.world import open_world
from engines.zero.config_file import shipped
from training.data.loader import on_device
from training.seeds import seed_weights

ROOT = Path(__file__).parents[1]
LIMITS = {"fp32": 1e-3, "bf16": 5e-2}
"""The largest relative error of losses and gradients; rounding in 16 bits is about 1e-2."""
STEPS = 3
_RANKED = re.compile(r"(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)")


@dataclass(frozen=True)
class Reference:
    """A few steps in plain PyTorch on a CPU, in fp32."""

    work: Work
    """With the global batch as its micro-batch."""

    @cached_property
    def trained(self) -> tuple[list[float], dict[str, Tensor]]:
        """The losses, and the first moments of AdamW by parameter."""
        seed_weights(SEED)
        model = self.work.task.build().train()
        optimizer = self.work.optimizer(model)
        losses = []
        for batch in self.work.batches():
            loss = self.work.loss(model, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        state = optimizer.state
        return losses, {n: state[p]["exp_avg"].flatten() for n, p in model.named_parameters()}


def agreement(report: Report, is_smoke: bool) -> None:
    """The errors of each engine against plain PyTorch; raises RuntimeError if one is too large."""
    world = open_world("cpu" if is_smoke else "cuda", 60.0, always_group=True)
    more: dict[str, Any] = {"seq_len": 64, "rank": world.rank, "world_size": world.size}
    work = Work("tiny", 2, STEPS, **more)
    whole = replace(work, micro_batch=2 * world.size, rank=0, world_size=1)
    reference = Reference(whole)
    errors: dict[str, Mapping[str, float]] = {}
    wrong: list[str] = []
    for precision, limit in LIMITS.items():
        for name, entry in ENGINES.items():
            title = f"{name} in {precision}"
            if missing(entry) or (entry.processes or world.size) < world.size:
                continue
            try:
                errors[title] = _errors(world, work, reference, name, precision)
            except Exception as error:  # one engine that fails; the others are compared as well
                errors[title] = {}
                wrong.append(f"{title}: {type(error).__name__}: {error}".partition("\n")[0])
            else:
                off = {kind: e for kind, e in errors[title].items() if not e <= limit}
                wrong += [f"{title}: {kind} is {e:.1g} off" for kind, e in off.items()]
            report({"errors": errors, "wrong": wrong})
    if wrong:
        raise RuntimeError("; ".join(wrong))


def _errors(world: World, work: Work, reference: Reference, name: str, precision: Any) -> dict[str, float]:
    """The relative errors of losses and of first moments. Collective."""
    seed_weights(SEED)
    model = work.task.build()
    decays = [group["weight_decay"] for group in work.groups(model)]
    layout = ENGINES[name].ds_config
    options = Options(
        precision=precision, micro_batch=work.micro_batch, ds_config=shipped(layout) if layout else {}
    )
    spec = OptimizerSpec(
        options=[{"weight_decay": decay} for decay in decays],
        group_of=lambda name, parameter: int(parameter.ndim < 2),
        build=work.adamw,
        clip_norm=None,  # it would hide gradients of another scale
    )
    engine = build_engine(name, world, options)
    try:
        module = engine.prepare(model, spec, work.blocks(model)).train()
        losses = []
        for batch in work.batches():
            units = world.sum(torch.tensor(work.task.num_units(batch), device=world.device))
            with engine.accumulate(last=True):
                loss = work.task.loss(module, on_device(batch, world.device)).sum
                assert isinstance(loss, Tensor)
                engine.backward(loss * world.size / units)
            engine.step()
            losses.append(float(world.sum(loss.detach()) / units))
        expected, moments = reference.trained
        squares = torch.zeros(2, dtype=torch.float64)
        for piece in engine.state().pieces:
            if piece.kind == "exp_avg":
                end = piece.start + piece.data.numel()
                exact = moments[piece.name][piece.start : end].double()
                error = piece.data.flatten().cpu().double() - exact
                squares += torch.stack([error.square().sum(), exact.square().sum()])
        moment, norm = world.sum(squares.to(world.device, torch.float32)).sqrt().tolist()
    finally:
        engine.close()
    apart = [abs(loss - exact) / exact for loss, exact in zip(losses, expected, strict=True)]
    return {"loss": max(apart), "gradient": moment / norm}


def command_line(report: Report, is_smoke: bool) -> None:
    """Plan and run a small model by the command line.

    Raises RuntimeError if the plan does not know the memory of the GPU, or a command fails.
    """
    folder = Path(tempfile.gettempdir())
    device = "cpu" if is_smoke else "cuda"
    sets = [f"device={device}", "engine.nproc=1", "train.preview=false", "save.every=null"]
    common = ["--model", "language:tiny", "--max-steps", "3" if is_smoke else "30"]
    common += [part for each in sets for part in ("--set", each)]
    plan = json.loads(_launch("plan", *common, "--json"))
    _launch("run", *common, "--engine", "auto", "--out", str(folder / "run"))
    result = json.loads((folder / "run" / "result.json").read_text())
    peak = result["peak_memory_bytes"]["device"]
    total = None if is_smoke else torch.cuda.get_device_properties(0).total_memory
    report(
        {
            "engine": result["engine"],
            "memory_bytes": plan["device_memory_bytes"],
            "total_bytes": total,
            "planned_bytes": plan["device_peak_bytes"]["total"],
            "peak_bytes": peak,
        }
    )
    check_memory(plan, total, peak)


def check_memory(plan: Mapping[str, Any], total: int | None, peak: int | None) -> None:
    """Raise RuntimeError unless `plan` knows the memory of the GPU; `total` bytes, None: a CPU.

    A part of it is for the CUDA context and for other processes. `peak`: bytes in the run.
    """
    memory = plan["device_memory_bytes"]
    if not plan["fits"]:
        raise RuntimeError(f"plan: fits is {plan['fits']}; the memory known is {memory} bytes")
    if total is not None and not (memory and total / 2 < memory <= total * 1.05 and peak):
        raise RuntimeError(f"plan: {memory} of {total} bytes of the GPU; measured: {peak}")


def lost_rank(report: Report, is_smoke: bool) -> None:
    """Seconds from an out of memory on one of two ranks until both have ended.

    Raises RuntimeError if they do not continue with smaller micro-batches.
    """
    folder = Path(tempfile.gettempdir())
    began, run = folder / "began", folder / "lost"
    variables = {ballast.MOMENT: "backward", ballast.BYTES: str(2**50), ballast.BEGAN: str(began)}
    sets = [f"device={'cpu' if is_smoke else 'cuda'}", "train.global_batch=16"]
    sets += [f"train.micro_batch={ballast.MICRO_BATCH}", "save.every=1", "engine.threads=1"]
    arguments = ["run", "--model", "benchmarks.ballast:Ballast", "--engine", "ddp", "--nproc", "2"]
    arguments += ["--max-steps", str(ballast.STEP + 2), "--out", str(run)]
    _launch(*arguments, *(part for each in sets for part in ("--set", each)), **variables)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (event,) = (event for event in events if event["kind"] == "out_of_memory")
    ended = datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()
    report({"end_s": ended - float(began.read_text())})


def _launch(*arguments: str, **variables: str) -> str:
    """What the command line prints. Raises RuntimeError if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "launcher", *arguments],
        cwd=ROOT,
        env=unranked() | variables,
        capture_output=True,
        text=True,
    )
    print(done.stdout, done.stderr, flush=True)
    if done.returncode:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise RuntimeError(f"{arguments[0]}: exit code {done.returncode}: {last}")
    return done.stdout


def tests(report: Report, path: str) -> None:
    """The outcome of every test marked gpu in the file `path`, reported as each one ends."""
    arguments = ["-p", "no:xdist", "-o", "addopts=", "-m", "gpu", "-v", "--color=no", path]
    outcomes: dict[str, str] = {}
    for line in _lines([sys.executable, "-m", "pytest", *arguments]):
        print(line, end="", flush=True)
        outcomes |= outcome(line)
        report({"tests": outcomes})
    if not outcomes:
        raise RuntimeError("pytest reported no test")


def _lines(command: list[str]) -> Iterator[str]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=unranked(), stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield from process.stdout


def unranked() -> dict[str, str]:
    """The environment of a program that is not one of several ranks."""
    return {name: value for name, value in os.environ.items() if not _RANKED.fullmatch(name)}


def outcome(line: str) -> Mapping[str, str]:
    """The test and its outcome in a line of `pytest -v`; empty: another line."""
    found = re.match(r"\S+?::(.+) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", line)
    return {found[1]: found[2].lower()} if found else {}
