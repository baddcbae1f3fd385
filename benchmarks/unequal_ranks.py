"""How long is a step of two ranks, one of which computes everything three times?

    python -m benchmarks.unequal_ranks
    python -m benchmarks.unequal_ranks --engines ddp fsdp --rounds 3

Each run trains the same small language model on two processes with `engine.shares` equal, as
numbers, and auto, one after the other in each round. On the last rank each block computes its
output, and its gradients, three times. A fourth run takes steps of one sample a rank: no more than
that part of a step is independent of the shares. Every logged loss of the others must be that of
equal shares, to the rounding of fp32. Exits 1 if one is not.

Beside the time of a step stands the processor time of the rank that computes longest. Programs that
use idle processors, too, make a step longer where no rank waits, but not that time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from benchmarks.figures import Row, command, machine, rows, save, table
from gearshift.models.base import Batch, SplitName
from gearshift.models.custom import CustomTask
from gearshift.models.language.config import SIZES
from gearshift.models.language.model import Transformer

TIMES = "UNEQUAL_TIMES"
"""Environment variable: how often the last rank computes a layer; 1 if it is not set."""
CLOCKS = "UNEQUAL_CLOCKS"
"""Environment variable: a folder for the processor times of each rank."""
SHARES = {"equal": "equal", "[3, 1]": "[3, 1]", "auto": "auto"}
LEAST = "one sample each"
_BATCH = 64
ROUNDING = 1e-6
"""Relative difference of losses whose sums are in another order, float32."""
_TOKENS, _SAMPLES, _WORDS = 64, 512, 200
_LIMIT_S = 600.0


class Unequal(CustomTask):
    """Random tokens and a transformer of size small, slower on the last rank."""

    defaults: Mapping[str, Any] = {"schedule": {"name": "constant"}}
    fields: Sequence[str] = ("tokens",)

    def samples(self, split: SplitName) -> Sequence[tuple[Tensor]]:
        """Random tokens, [token] each."""
        draw = torch.Generator().manual_seed(len(split))
        return [(row,) for row in torch.randint(_WORDS, (_SAMPLES, _TOKENS + 1), generator=draw)]

    def build(self) -> Module:
        """The model; on the last rank its blocks, and the layers outside of them, repeat."""
        model = Transformer(SIZES["small"])
        is_last = int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1
        if is_last:
            blocks = self.blocks(model)
            inside = {part for block in blocks for part in block.modules()}
            others = [part for part in model.modules() if part not in inside]
            for part in [*blocks, *(other for other in others if not [*other.children()])]:
                part.forward = repeated(part.forward, int(os.environ.get(TIMES, 1)))
        return model

    def blocks(self, model: Any) -> list[Module]:
        """The layers of the transformer."""
        return list(model.model.layers)

    def measure(self, model: Module, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of the next token, summed over samples."""
        folder = os.environ.get(CLOCKS)
        if folder and torch.is_grad_enabled():
            with open(Path(folder) / os.environ.get("RANK", "0"), "a") as clock:
                clock.write(f"{time.process_time()}\n")
        tokens = batch["tokens"]
        loss = model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        return {"loss": loss / _TOKENS}


def repeated(forward: Callable[..., Tensor], times: int) -> Callable[..., Tensor]:
    """`forward`, whose output and gradients are computed so many times, and count once."""

    def compute(*args: Any) -> Tensor:
        output = forward(*args)
        for _ in range(times - 1):
            output = output + 0 * forward(*args)
        return output

    return compute


def run(
    options: argparse.Namespace, engine: str, shares: str, batch: int = _BATCH
) -> tuple[float, float, list[float]]:
    """Seconds of a step in the second half of a run, its processor time, and the losses."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["-m", "launcher", "--model", "benchmarks.unequal_ranks:Unequal"]
        words += ["--engine", engine, "--nproc", "2", "--max-steps", str(options.steps)]
        words += ["--out", str(out)]
        settings = {
            "engine.shares": shares,
            "engine.threads": 1,
            "device": "cpu",
            "train.global_batch": batch,
            "train.micro_batch": max(1, batch // 2 // options.accumulation),
            "log.every": 2,
            "eval.every": "null",
            "eval.samples": 16,
            "save.last": "false",
            "report.enabled": "false",
        }
        for key, value in settings.items():
            words += ["--set", f"{key}={value}"]
        done = subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            env={**os.environ, TIMES: str(options.times), CLOCKS: folder},
            timeout=_LIMIT_S,
        )
        if done.returncode:
            raise RuntimeError(f"{engine}, {shares} failed:\n{done.stdout}{done.stderr}")
        records = map(json.loads, (out / "metrics.jsonl").read_text("utf-8").splitlines())
        lines = [record for record in records if record["kind"] == "train"]
        processor_s = max(map(processor_time, (Path(folder) / "0", Path(folder) / "1")))
    later = [line["step_time_s"] for line in lines if line["step"] > options.steps / 2]
    step_s = statistics.median(later)
    return step_s, processor_s / options.steps, [line["loss"] for line in lines]


def processor_time(path: Path) -> float:
    """Seconds of a rank in all steps, at the pace of the second half of its forward passes."""
    times = list(map(float, path.read_text().split()))
    half = len(times) // 2
    return (times[-1] - times[half]) / (len(times) - 1 - half) * len(times)


def measure(options: argparse.Namespace, engine: str) -> list[Row]:
    """Each kind of shares: steps, and processor time. Raises SystemExit for another loss."""
    steps = []
    processor = []
    for number in range(options.rounds):
        names = list(SHARES)[:: 1 if number % 2 == 0 else -1]
        runs = {name: run(options, engine, SHARES[name]) for name in names}
        for name in names:
            for loss, expected in zip(runs[name][2], runs["equal"][2], strict=True):
                if abs(loss - expected) > ROUNDING * expected:
                    raise SystemExit(f"{engine}, shares {name}: loss {loss}, not {expected}")
        runs[LEAST] = run(options, engine, "equal", batch=2)
        steps.append({f"{engine}, {name}": seconds for name, (seconds, *_) in runs.items()})
        processor.append(
            {f"{engine}, {name}, processor": seconds for name, (_, seconds, _) in runs.items()}
        )
        print(f"{engine}: round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    reference = f"{engine}, equal"
    return [*rows(steps, reference), *rows(processor, f"{reference}, processor")]


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--engines", nargs="*", default=["ddp", "zero2", "fsdp"])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=3, help="how often the last rank computes")
    parser.add_argument("--accumulation", type=int, default=4, help="micro-batches of a step")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    result = []
    for engine in options.engines:
        result += measure(options, engine)
    facts = machine(("torch", "deepspeed"))
    print("\n".join(table(result)))
    save(options.json, command("unequal_ranks", sys.argv[1:]), facts, {"engines": result})


if __name__ == "__main__":
    main()
