"""The parts of benchmarks.gpu, each run in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import ours
from benchmarks.clock import StepClock
from benchmarks.isolated import Report
from benchmarks.plain import PlainWork
from benchmarks.probe import STEPS, watch
from benchmarks.raw_engines import RAW
from benchmarks.workload import Work
from models.language.config import SIZES
from models.language.embedded import read_documents

ROOT = Path(__file__).parents[1]
UNPACKED_SHARE = 0.34
"""One of three documents to validate and one to test: each row of the training split holds one."""


@dataclass(frozen=True)
class Step:
    """A contender's training step, as the arguments of `step`."""

    side: str
    """plain, raw or ours: a plain model, ours in a loop by hand, Gearshift."""
    engine: str
    size: str
    seq_len: int
    micro_batch: int
    packed: bool
    compile: bool
    settings: Mapping[str, Any]
    """Further settings of ours; engine.ds_config is the content of the file."""
    is_smoke: bool


def ceiling(report: Report, is_smoke: bool) -> None:
    """FLOP/s of a square bf16 matrix product at its best, and the name of the GPU."""
    if is_smoke:
        report({"flops": _matrix_flops("cpu", 128, 0.05), "gpu": "none", "gpus": 0})
        return
    if not torch.cuda.is_available():
        raise RuntimeError("this machine has no GPU; --smoke runs on a CPU")
    name = torch.cuda.get_device_name()
    flops = _matrix_flops("cuda", 8192, 3.0)
    report({"flops": flops, "gpu": name, "gpus": torch.cuda.device_count()})


def _matrix_flops(device: str, side: int, seconds: float) -> float:
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    b = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    best = 0.0
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        begin = _now(device)
        for _ in range(10):
            a @ b
        best = max(best, 10 * 2 * side**3 / (_now(device) - begin))
    return best


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def step(report: Report, warmup: int, timed: int, **facts: Any) -> None:
    """Train as the Step of `facts` and report what the probe found; ends the process."""
    case = Step(**facts)
    folder = Path(tempfile.gettempdir())  # that of all ranks
    work = _work(case, warmup + timed + STEPS, folder)
    if case.is_smoke:
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    figures: dict[str, Any] = {"flops": work.flops()}
    vocabulary = SIZES[case.size].vocabulary

    def advance(step: int) -> None:
        try:
            next(watching)
        except StopIteration:
            report(figures)
            os._exit(0)  # before an evaluation and a checkpoint, which are not measured

    clock = StepClock(warmup, warmup + timed, work.device, advance)
    watching = watch(clock, vocabulary, figures)
    next(watching)
    with clock:
        if case.side == "ours":
            workers = 0 if case.is_smoke else 4  # the family's default
            more = {"loader.workers": workers, "compile": "auto" if case.compile else "off"}
            ours.train(work, case.engine, folder / "run", more | _settings(case, folder))
        else:
            RAW[case.engine](work)
    raise RuntimeError(f"training ended after {clock.ticks} steps")


def _settings(case: Step, folder: Path) -> dict[str, Any]:
    settings = dict(case.settings)
    if config := settings.get("engine.ds_config"):
        file = folder / "ds_config.json"  # the same on all ranks
        file.write_text(json.dumps(config))
        settings["engine.ds_config"] = str(file)
    return settings


def _work(case: Step, steps: int, folder: Path) -> Work:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    options: dict[str, Any] = {
        "seq_len": case.seq_len,
        "device": "cpu" if case.is_smoke else "cuda",
        "threads": 1 if case.is_smoke else max(1, (os.cpu_count() or 1) // size),
        "precision": "bf16",
        "compile": "on" if case.compile else "off",
        "backend": "eager" if case.is_smoke else "inductor",
        "rank": rank,
        "world_size": size,
    }
    if case.side == "plain":
        return PlainWork(case.size, case.micro_batch, steps, **options)
    if not case.packed:
        options["data"] = str(_three_documents(folder, case.is_smoke))
        options["eval_share"] = UNPACKED_SHARE
    return Work(case.size, case.micro_batch, steps, **options)


def _three_documents(folder: Path, is_small: bool) -> Path:
    """A folder of three long texts in `folder`, the same one on all ranks."""
    text = "\n".join(document.text for document in read_documents())
    size = 20_000 if is_small else len(text) // 3
    own = Path(tempfile.mkdtemp(dir=folder))
    for number in range(3):
        part = text[number * size : (number + 1) * size]
        (own / f"{number}.txt").write_text(part, encoding="utf-8")
    shared = folder / "texts"
    with suppress(OSError):  # another rank was faster
        own.rename(shared)
    return shared


def tests(report: Report, path: str) -> None:
    """The outcome of every test marked gpu in the file `path`, reported as each one ends."""
    arguments = ["-p", "no:xdist", "-o", "addopts=", "-m", "gpu", "-v", "--color=no", path]
    command = [sys.executable, "-m", "pytest", *arguments]
    ranked = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {k: v for k, v in os.environ.items() if k not in ranked}
    outcomes: dict[str, str] = {}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as pytest:
        assert pytest.stdout is not None
        for line in pytest.stdout:
            print(line, end="", flush=True)
            outcomes |= outcome(line)
            report({"tests": outcomes})
    if not outcomes:
        raise RuntimeError("pytest reported no test")


def outcome(line: str) -> Mapping[str, str]:
    """The test and its outcome in a line of `pytest -v`; empty: another line."""
    found = re.match(r"\S+?::(.+) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", line)
    return {found[1]: found[2].lower()} if found else {}
