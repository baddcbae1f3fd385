"""What share of a GPU's measured matrix speed do the engines reach, and raw torch.compile?

    python -m benchmarks.gpu_throughput                      # 124M and 1.3B in bf16, on a GPU
    python -m benchmarks.gpu_throughput --smoke              # the same code on a CPU, tiny

Each contender has a process of its own, so that its peak of memory is its own. The share is the
model's floating point operations a second by those of a plain matrix product in bf16, measured
here and now; docs/performance.md has the formula.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.clock import StepClock
from benchmarks.figures import command, machine
from benchmarks.ours import ours
from benchmarks.workload import CLIP_NORM, Work

CONTENDERS = ("raw torch.compile", "local", "fsdp")
HEADER = "| model | contender | tokens/s | share of the matrix ceiling | peak GiB |"


@dataclass(frozen=True)
class Case:
    """One model at one length and batch."""

    size: str
    seq_len: int
    micro_batch: int


CASES = (Case("124M", 1024, 32), Case("1.3B", 2048, 8))
SMOKE = (Case("tiny", 64, 2),)


def matrix_ceiling(device: str, side: int, seconds: float) -> float:
    """Floating point operations a second of a square bf16 matrix product, at its best."""
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


def raw_compile(work: Work) -> None:
    """Hand-written training: fp32 weights, bf16 autocast, torch.compile, fused AdamW."""
    model = work.model()
    compiled: Any = torch.compile(model)
    optimizer = work.optimizer(model)
    schedule = work.schedule(optimizer)
    for batch in work.batches():
        with torch.autocast(work.device, torch.bfloat16):
            loss = work.loss(compiled, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def run_contender(options: argparse.Namespace) -> None:
    """Run one contender in this process and write its figures to a file."""
    size, seq_len, micro_batch = options.case
    device = "cpu" if options.smoke else "cuda"
    work = Work(
        size,
        int(micro_batch),
        options.steps,
        seq_len=int(seq_len),
        device=device,
        precision="bf16",
        compile="off" if options.smoke else "on",
    )
    with StepClock(options.warmup, work.steps, device) as clock:
        if options.contender == CONTENDERS[0]:
            raw_compile(work)
        else:
            ours(work, options.contender)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    figures = {"seconds": clock.seconds_per_step, "peak_bytes": peak, "flops": flops(work)}
    options.result.write_text(json.dumps(figures))


def flops(work: Work) -> float:
    """Floating point operations of one step; the model is built without memory."""
    with torch.device("meta"):
        per_sample = work.task.flops_per_sample(work.task.build())
    return (per_sample or float("nan")) * work.micro_batch


def measure_contender(
    options: argparse.Namespace, case: Case, contender: str
) -> Mapping[str, float]:
    """The figures of one contender, measured in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "figures.json"
        arguments = [sys.executable, "-m", "benchmarks.gpu_throughput", *sys.argv[1:]]
        arguments += ["--contender", contender, "--result", str(result)]
        arguments += ["--case", case.size, str(case.seq_len), str(case.micro_batch)]
        done = subprocess.run(arguments, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{contender} failed:\n{done.stderr[-6000:]}")
        return json.loads(result.read_text())


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=15, help="steps that are not measured")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        run_contender(options)
        return

    facts = machine(("torch",))
    ceiling = (
        matrix_ceiling("cpu", 256, 0.2) if options.smoke else matrix_ceiling("cuda", 8192, 3.0)
    )
    if not options.smoke:
        facts["gpu"] = torch.cuda.get_device_name()
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(
        f"matrix ceiling in bf16: {ceiling / 1e12:.1f} TFLOP/s\n{HEADER}\n|---|---|---:|---:|---:|"
    )
    measured = []
    for case in SMOKE if options.smoke else CASES:
        for contender in CONTENDERS:
            figures = measure_contender(options, case, contender)
            rate = case.micro_batch * case.seq_len / figures["seconds"]
            share = figures["flops"] / figures["seconds"] / ceiling
            print(
                f"| {case.size} | {contender} | {rate:,.0f} | {share:.3f} "
                f"| {figures['peak_bytes'] / 2**30:.1f} |",
                flush=True,
            )
            measured.append({"size": case.size, "contender": contender, "share": share, **figures})
    if options.json:
        command_line = command("gpu_throughput", sys.argv[1:])
        content = {"command": command_line, "machine": facts, "ceiling": ceiling}
        options.json.write_text(json.dumps({**content, "rows": measured}, indent=2) + "\n")


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
