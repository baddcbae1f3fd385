"""The parts of benchmarks.gpu that measure speed, each run in a process of its own."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import ours
from benchmarks.clock import StepClock
from benchmarks.family_work import FamilyWork
from benchmarks.isolated import Report
from benchmarks.plain import PlainWork
from benchmarks.probe import STEPS, watch
from benchmarks.raw_engines import RAW
from benchmarks.workload import Work
from engines.device import pick_device, use, use_threads
from engines.zero.library import clean_architectures
from models.language.config import SIZES
from models.language.embedded import read_documents

UNPACKED_SHARE = 0.34
"""One of three documents to validate and one to test: each row of the training split holds one."""


@dataclass(frozen=True)
class Step:
    """A contender's training step, as the arguments of `step`."""

    side: str
    """plain, raw or ours: a plain model, ours in a loop by hand, Gearshift."""
    engine: str
    family: str
    size: str
    seq_len: int
    """Of the language family, as micro_batch; the others take their defaults."""
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
    device = "cpu" if case.is_smoke else "cuda"
    as_ours(device, _threads(case))
    steps = warmup + timed + STEPS
    figures: dict[str, Any] = {}
    train, vocabulary = (
        _language(case, steps, folder, figures)
        if case.family == "language"
        else _family(case, steps, folder, figures)
    )

    def advance(step: int) -> None:
        try:
            next(watching)
        except StopIteration:
            report(figures)
            os._exit(0)  # before an evaluation and a checkpoint, which are not measured

    clock = StepClock(warmup, warmup + timed, device, advance)
    watching = watch(clock, vocabulary, figures)
    next(watching)
    with clock:
        train()
    raise RuntimeError(f"training ended after {clock.ticks} steps")


def as_ours(device: str, threads: int) -> None:
    """Give this process what Gearshift gives a rank, for every contender.

    Its device, the allocator of device memory, the threads, and the variables without which
    DeepSpeed cannot be imported on some machines.
    """
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    use(pick_device(device, local_rank, local_size))
    use_threads(threads, local_size)
    os.environ |= {"DS_ACCELERATOR": device, "OMP_NUM_THREADS": str(threads)}
    os.environ.setdefault("DS_IGNORE_CUDA_DETECTION", "1")
    clean_architectures(os.environ)


def _threads(case: Step) -> int:
    size = int(os.environ["WORLD_SIZE"])
    return 1 if case.is_smoke else max(1, (os.cpu_count() or 1) // size)


def _language(
    case: Step, steps: int, folder: Path, figures: dict[str, Any]
) -> tuple[Callable[[], object], int]:
    """What trains the language family, and the elements of an axis of its head."""
    work = _work(case, steps, folder)
    figures |= {"flops": work.flops(), "samples": case.micro_batch}
    vocabulary = SIZES[case.size].vocabulary
    if case.side != "ours":
        return partial(RAW[case.engine], work), vocabulary
    workers = 0 if case.is_smoke else 4  # the family's default
    more = {"loader.workers": workers, "compile": "auto" if case.compile else "off"}
    more |= _settings(case, folder)
    return partial(ours.train, work, case.engine, folder / "run", more), vocabulary


def _family(
    case: Step, steps: int, folder: Path, figures: dict[str, Any]
) -> tuple[Callable[[], object], int]:
    """What trains another family by its defaults; it has no head of many elements."""
    device = "cpu" if case.is_smoke else "cuda"
    work = FamilyWork(case.family, case.size, steps, device, folder)
    figures |= {"flops": work.flops(), "samples": work.samples}
    if case.side != "ours":
        backend = "eager" if case.is_smoke else "inductor"
        return partial(work.by_hand, backend if case.compile else None), -1
    more = {"engine.threads": _threads(case)} | _settings(case, folder)
    return partial(work.train, case.engine, more), -1


def _settings(case: Step, folder: Path) -> dict[str, Any]:
    settings = dict(case.settings)
    if config := settings.get("engine.ds_config"):
        file = folder / "ds_config.json"  # the same on all ranks
        file.write_text(json.dumps(config))
        settings["engine.ds_config"] = str(file)
    return settings


def _work(case: Step, steps: int, folder: Path) -> Work:
    options: dict[str, Any] = {
        "seq_len": case.seq_len,
        "device": "cpu" if case.is_smoke else "cuda",
        "threads": _threads(case),
        "precision": "bf16",
        "compile": "on" if case.compile else "off",
        "backend": "eager" if case.is_smoke else "inductor",
        "rank": int(os.environ["RANK"]),
        "world_size": int(os.environ["WORLD_SIZE"]),
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
