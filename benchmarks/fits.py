"""Which language models fit: the largest one for a GPU and main memory, by plan.

    python -m benchmarks.fits --json benchmarks/results/fits.json
    python -m benchmarks.fits --json benchmarks/results/fits.json --resume    # plan what it lacks
    python -m benchmarks.fits --smoke                                         # a tiny layout

Published layouts, whose folder has a file without values, on one GPU, with one sample of 2,048
tokens and activation checkpointing. Each layout is planned with the rungs of `plan`, from small to
large ones, as long as the one before fits somewhere.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import transformers

from benchmarks.figures import command, listed, load_rows, machine, markdown, save_rows
from benchmarks.lora import save_layout
from gearshift.launcher.base.diagnostics import PROGRAM, plain
from gearshift.launcher.commands.plan import resolve_with
from gearshift.launcher.config.command_line import GPU_MEMORY, GPUS, RAM
from gearshift.launcher.config.machine import CONTEXT_BYTES, detect_machine
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.plan import target
from gearshift.launcher.plan.ladder import RUNGS, TRAINED, Change, Rung, Step, climb
from gearshift.launcher.plan.plan import Plan, open_planner
from gearshift.launcher.plan.target import MARGIN
from gearshift.training.logging.encoding import size

GPUS_GIB = (4, 6, 8, 12, 16, 24, 48, 80)
RAMS_GIB = (16, 32, 64)
METHODS = ("full training", "LoRA", "nf4 with LoRA")
SETS = (
    *("data.seq_len=2048", "train.global_batch=1", "train.micro_batch=1"),
    *("memory.activation_checkpointing=full", "loader.workers=0"),
)


def _layout(
    kind: str, width: int, inner: int, layers: int, heads: int, kv: int, entries: int, *, tied: bool
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": entries,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 8192,
    }


LAYOUTS = {
    "SmolLM2-360M": _layout("llama", 960, 2560, 32, 15, 5, 49152, tied=True),
    "Qwen2.5-0.5B": _layout("qwen2", 896, 4864, 24, 14, 2, 151936, tied=True),
    "Llama-3.2-1B": _layout("llama", 2048, 8192, 16, 32, 8, 128256, tied=True),
    "Qwen2.5-1.5B": _layout("qwen2", 1536, 8960, 28, 12, 2, 151936, tied=True),
    "Llama-3.2-3B": _layout("llama", 3072, 8192, 28, 24, 8, 128256, tied=True),
    "Llama-2-7B": _layout("llama", 4096, 11008, 32, 32, 32, 32000, tied=False),
    "Llama-3.1-8B": _layout("llama", 4096, 14336, 32, 32, 8, 128256, tied=False),
    "Qwen2.5-14B": _layout("qwen2", 5120, 13824, 48, 40, 8, 152064, tied=False),
    "Qwen2.5-32B": _layout("qwen2", 5120, 27648, 64, 40, 8, 152064, tied=False),
    "Llama-3.1-70B": _layout("llama", 8192, 28672, 80, 64, 8, 128256, tied=False),
}
"""By public name, from small to large; the numbers of their config.json."""
SMOKE = {"tiny": _layout("llama", 64, 256, 2, 1, 1, 1024, tied=True)}


@dataclass(frozen=True)
class Row:
    """A layout with the settings of a rung, and what they need."""

    layout: str
    parameters: int
    method: str
    rung: str
    effect: str
    sets: Sequence[str]
    """Beside SETS."""
    device_bytes: int
    host_bytes: int
    command: str
    """That plans it, with the model in a folder of its name."""

    def fits(self, gpu_gib: int, ram_gib: int) -> bool:
        """Whether `plan` says so."""
        has_ram = self.host_bytes <= ram_gib * 2**30 * (1 - MARGIN)
        return has_ram and self.device_bytes + CONTEXT_BYTES <= gpu_gib * 2**30


def method_of(rung: Rung) -> str:
    """Which of METHODS a rung is."""
    if rung.effect != TRAINED:
        return METHODS[0]
    return METHODS[1] if "model.lora.rank" in rung.change else METHODS[2]


def plan_layout(name: str, layout: Mapping[str, Any], rungs: Sequence[Rung]) -> list[Row]:
    """A row for each of `rungs` that exists, and one for SETS alone; progress on stderr."""
    rows: list[Row] = []

    def add(step: Step, method: str) -> None:
        sets = (f"model.pretrained={name}", *SETS, *step.sets)
        words = [*PROGRAM.split(), "plan", "--model", "language", GPUS.flag, "1"]
        line = shlex.join([*words, *(word for text in sets for word in ("--set", text))])
        needs = (step.plan.device_bytes, step.plan.host_bytes)
        parameters = step.plan.parameters
        row = Row(name, parameters, method, step.name, step.effect, step.sets, *needs, line)
        rows.append(row)
        print(
            f"{name}: {step.name}: {size(needs[0])}, host {size(needs[1])}",
            file=sys.stderr,
            flush=True,
        )

    # Nothing fits, so that every rung is planned.
    options = {GPUS.flag: "1", GPU_MEMORY.flag: "1MiB", RAM.flag: "1MiB"}
    described = target.describe(options, detect_machine(), [])
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / name
        base.mkdir()
        save_layout(base, transformers.AutoConfig.for_model(**layout))
        args = CliArgs(model="language", sets=(f"model.pretrained={base}", *SETS))
        resolved = resolve_with(described, args, ("engine.name=local",))
        with open_planner(resolved, described) as planner:

            def plan_with(change: Change) -> Plan:
                sets = [f"{key}={plain(value)}" for key, value in change.items()]
                return planner.plan(resolve_with(described, args, ("engine.nproc=1", *sets)))

            plan = planner.plan(resolved)
            add(Step("activation checkpointing", {}, plan), METHODS[0])
            methods = {rung.name: method_of(rung) for rung in rungs}
            for step in climb(resolved, plan, plan_with, rungs):
                add(step, methods[step.name])
    return rows


def plans(layouts: Mapping[str, Mapping[str, Any]], known: Sequence[Row]) -> Iterator[Row]:
    """The rows of `layouts`, those of `known` as they are; each layout in its own process."""
    alive = [*METHODS]
    for name, layout in layouts.items():
        rows = [row for row in known if row.layout == name]
        if not rows:
            # An adapter of the rung LoRA is below nf4.
            is_adapted = METHODS[2] in alive
            rungs = [r for r in RUNGS if method_of(r) in (*alive, *METHODS[1:2] * is_adapted)]
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows = pool.apply(plan_layout, (name, layout, rungs))
        yield from rows
        alive = [
            method
            for method in alive
            if any(largest(rows, method, gpu, ram) for gpu in GPUS_GIB for ram in RAMS_GIB)
        ]
        if not alive:
            return


def largest(rows: Sequence[Row], method: str, gpu_gib: int, ram_gib: int) -> Row | None:
    """The largest layout that fits, with the first rung that does."""
    fitting = [row for row in rows if row.method == method and row.fits(gpu_gib, ram_gib)]
    return max(fitting, key=lambda row: row.parameters, default=None)


def table(
    rows: Sequence[Row], gpus: Sequence[int] = GPUS_GIB, rams: Sequence[int] = RAMS_GIB
) -> list[str]:
    """The largest layouts by memory, as the lines of a Markdown table."""
    methods = [method for method in METHODS if any(row.method == method for row in rows)]
    cells = (
        [
            f"{gpu} GiB",
            f"{ram} GiB",
            *(_cell(largest(rows, method, gpu, ram)) for method in methods),
        ]
        for gpu, ram in product(gpus, rams)
    )
    return markdown(["GPU", "main memory", *methods], cells)


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    return row.layout if row.method in METHODS[1:] else f"{row.layout}, {row.rung}"


def main() -> None:
    """Plan the layouts, print the table, and write JSON after each layout where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--resume", action="store_true", help="keep the layouts of that file")
    parser.add_argument("--smoke", action="store_true", help="a tiny layout")
    options = parser.parse_args()
    known = load_rows(options.json, Row)[2] if options.resume else []
    facts = machine(("torch", "transformers"))
    rows: list[Row] = []
    for row in plans(SMOKE if options.smoke else LAYOUTS, known):
        rows.append(row)
        if options.json:
            save_rows(options.json, command("fits", ()), facts, rows)
    print(listed(facts), *table(rows), sep="\n")


if __name__ == "__main__":
    main()
