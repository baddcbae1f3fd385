"""How far are our plan and other estimators from the memory that training takes?

    python -m benchmarks.plan_peers
    python -m benchmarks.plan_peers --models event_seg:tiny --engines local zero2

The peak of a rank: measured as in benchmarks/plan_error.py, predicted by `plan`, and by what comes
with other tools: DeepSpeed's estimate_zero2_model_states_mem_needs and that of stage 3, with the
part of a rank in host memory, and the formula of `accelerate estimate-memory` for training with
Adam, which knows one process. Both know the weights only; DeepSpeed assumes 16 bits. accelerate is
no dependency: without it the column stays empty. To have it, without what it depends on:

    pip install --no-deps --target FOLDER accelerate
    PYTHONPATH=FOLDER:. python -m benchmarks.plan_peers
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch.nn import Module

from benchmarks import isolated
from benchmarks.figures import command, listed, machine, save_rows
from benchmarks.plan_error import STEPS, measured_peak, predicted
from engines.zero import library
from launcher.config.machine import Machine, detect_machine
from launcher.config.provenance import CliArgs
from launcher.config.resolve import resolve
from launcher.plan.subject import read_task

MODELS = {
    "language:full": ("data.seq_len=256", "train.global_batch=4", "train.micro_batch=2"),
    "event_seg:tiny": (),
}
"""And what their steps are: few and short samples, to measure a large model in seconds."""
ENGINES = ("local", "zero2", "zero3", "zero2-offload", "zero3-offload")
_ALWAYS = ("precision=bf16", "loader.workers=0", "train.preview=false")


@dataclass(frozen=True)
class Row:
    """Predicted and measured peak of a rank, in bytes."""

    model: str
    engine: str
    ranks: int
    parameters: int
    measured: int
    ours: int
    deepspeed: int | None
    """None: it has no formula for the engine."""
    accelerate: int | None
    """None: it has none for several ranks, or is not installed."""
    steps: int


def measure(model: str, engine: str, here: Machine) -> Row | None:
    """Plan, estimate and train; None: the training failed, with a message."""
    ranks = 1 if engine == "local" else 2
    sets = [*MODELS[model], *_ALWAYS]
    resolved = resolve(CliArgs(model=model, engine=engine, sets=sets), here, ranks)
    plan = predicted(resolved, here)
    with read_task(resolved) as data:
        built = data.task.build()
    peak = measured_peak(resolved, ranks, f"{model}, {engine}")
    if peak is None:
        return None
    return Row(
        model=model,
        engine=engine,
        ranks=ranks,
        parameters=plan.parameters,
        measured=peak.tensors,
        ours=plan.device_bytes + plan.offloaded_bytes,
        deepspeed=_deepspeed(built, engine, ranks),
        accelerate=_accelerate(built) if ranks == 1 and _has_accelerate() else None,
        steps=STEPS[-1],
    )


def _deepspeed(model: Module, engine: str, ranks: int) -> int | None:
    """On the device and, of an offloading engine, a rank's part of the host."""
    library.load("cpu")
    from deepspeed.runtime.zero import stage3, stage_1_and_2

    offloads = engine.endswith("-offload")
    if engine.startswith("zero2"):
        host, device = stage_1_and_2.estimate_zero2_model_states_mem_needs(
            stage_1_and_2.model_to_params(model), ranks, cpu_offload=offloads
        )
    elif engine.startswith("zero3"):
        total, largest = stage3.model_to_params(model)
        host, device, _ = stage3.estimate_zero3_model_states_mem_needs(
            total, largest, ranks, cpu_offload=offloads, cpu_offload_params=offloads
        )
    else:
        return None
    return int(device + offloads * host / ranks)


def _accelerate(model: Module) -> int:
    """As `accelerate estimate-memory` shows for bf16: the largest of its four parts."""
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes

    whole, _ = calculate_maximum_sizes(model)
    return int(max(estimate_training_usage(whole, "bfloat16").values()))


def _has_accelerate() -> bool:
    return importlib.util.find_spec("accelerate") is not None


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, with the error of each prediction."""
    lines = [
        "| model | parameters | engine | ranks | measured MB | `plan` | DeepSpeed | Accelerate |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        found = (row.ours, row.deepspeed, row.accelerate)
        shown = " | ".join(_error(each, row.measured) for each in found)
        lines.append(
            f"| `{row.model}` | {row.parameters / 1e6:.1f}M | `{row.engine}` | {row.ranks} "
            f"| {row.measured / 1e6:.1f} | {shown} |"
        )
    return "\n".join(lines)


def _error(predicted: int | None, measured: int) -> str:
    if predicted is None:
        return "–"
    return f"{predicted / 1e6:.1f} ({predicted / measured - 1:+.1%})"


def rows(models: Sequence[str], engines: Sequence[str]) -> Iterator[Row]:
    """A row for each model and engine that could be trained."""
    here = replace(detect_machine(), gpus=0, device="cpu")
    for model in models:
        for engine in engines:
            if (row := measure(model, engine, here)) is not None:
                print(row, file=sys.stderr, flush=True)
                yield row


def main() -> int:
    """Measure, print the table, and write JSON where asked; 1: a training failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=[*MODELS], choices=MODELS)
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if not _has_accelerate():
        print("accelerate is not installed: its column stays empty", file=sys.stderr)
    isolated.preload(["torch._dynamo", "launcher.run.worker"])
    found = [*rows(options.models, options.engines)]
    facts = machine(("torch", "deepspeed", "accelerate"))
    print(f"{listed(facts)}\n{table(found)}")
    if options.json:
        save_rows(options.json, command("plan_peers", sys.argv[1:]), facts, found)
    return int(len(found) < len(options.models) * len(options.engines))


if __name__ == "__main__":
    sys.exit(main())
