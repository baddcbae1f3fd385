"""Which language models fit which GPU, by plan: full training, LoRA, and LoRA on a 4-bit base.

    python -m benchmarks.fits --json benchmarks/results/fits.json
    python -m benchmarks.fits --json benchmarks/results/fits.json --resume    # plan what it lacks
    python -m benchmarks.fits --only Qwen/Qwen3-8B                            # one model
    python -m benchmarks.fits --smoke                                         # a tiny layout

Models of the hub, by their configuration alone, on one GPU, with micro-batches of one sample of
2,048 tokens and activation checkpointing. Each is planned with the rungs of `plan`, from small to
large models; a method that fits nowhere for one model is left out for larger ones.
"""

from __future__ import annotations

import argparse
import math
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
from benchmarks.lora import save_tokenizer
from gearshift.launcher.base.diagnostics import PROGRAM, plain
from gearshift.launcher.commands.plan import resolve_with
from gearshift.launcher.config.machine import CONTEXT_BYTES, detect_machine
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.plan import target
from gearshift.launcher.plan.ladder import RUNGS, TRAINED, Change, Rung, Step, climb
from gearshift.launcher.plan.plan import Plan, open_planner
from gearshift.launcher.plan.target import MARGIN
from gearshift.training.logging.encoding import size

GPUS_GIB = (4, 6, 8, 12, 16, 24, 48, 80)
FINE_TUNED_GIB = (8, 12, 16, 24, 40, 48, 80)
"""GPUs of the table for fine-tuning."""
RAMS_GIB = (16, 32, 64)
METHODS = ("full training", "LoRA", "nf4 with LoRA")
SETS = (
    *("data.seq_len=2048", "train.micro_batch=1", "train.accumulation=8"),
    *("memory.activation_checkpointing=full", "loader.workers=0"),
)
_FIRST = "activation checkpointing"
"""The plan of SETS alone."""
_OFFLOAD = "weights offload"
WAYS = {
    _FIRST: "full",
    "optimizer states in int8": "full, int8 states",
    "LoRA": "LoRA",
    "nf4 weights": "QLoRA",
    _OFFLOAD: "full, offload",
}
"""Short names of the rungs that a fine-tuner chooses between; offload needs main memory, too."""


def _layout(
    kind: str,
    width: int,
    inner: int,
    layers: int,
    heads: tuple[int, int, int],
    entries: int,
    *,
    tied: bool = True,
) -> dict[str, Any]:
    """`heads`: of queries, of keys and values, and the width of one."""
    return {
        "model_type": kind,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "head_dim": heads[2],
        "vocab_size": entries,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 8192,
    }


def _gemma(width: int, inner: int, layers: int, heads: tuple[int, int, int]) -> dict[str, Any]:
    """With the encoder of images that the larger models of Gemma 3 have."""
    text = _layout("gemma3_text", width, inner, layers, heads, 262208)
    return {
        "model_type": "gemma3",
        "text_config": {**text, "sliding_window": 1024},
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 896,
            "patch_size": 14,
            "vision_use_head": False,
        },
    }


_GEMMA_1B = _layout("gemma3_text", 1152, 6912, 26, (4, 1, 256), 262144)
_GEMMA_270M = _layout("gemma3_text", 640, 2048, 18, (4, 1, 256), 262144)
LAYOUTS = {
    "google/gemma-3-270m-it": {**_GEMMA_270M, "sliding_window": 512},
    "Qwen/Qwen3-0.6B": _layout("qwen3", 1024, 3072, 28, (16, 8, 128), 151936),
    "google/gemma-3-1b-it": {**_GEMMA_1B, "sliding_window": 512},
    "meta-llama/Llama-3.2-1B-Instruct": _layout("llama", 2048, 8192, 16, (32, 8, 64), 128256),
    "Qwen/Qwen3-1.7B": _layout("qwen3", 2048, 6144, 28, (16, 8, 128), 151936),
    "HuggingFaceTB/SmolLM3-3B": _layout("smollm3", 2048, 11008, 36, (16, 4, 128), 128256),
    "meta-llama/Llama-3.2-3B-Instruct": _layout("llama", 3072, 8192, 28, (24, 8, 128), 128256),
    "Qwen/Qwen3-4B": _layout("qwen3", 2560, 9728, 36, (32, 8, 128), 151936),
    "google/gemma-3-4b-it": _gemma(2560, 10240, 34, (8, 4, 256)),
    "meta-llama/Llama-3.1-8B-Instruct": _layout(
        "llama", 4096, 14336, 32, (32, 8, 128), 128256, tied=False
    ),
    "Qwen/Qwen3-8B": _layout("qwen3", 4096, 12288, 36, (32, 8, 128), 151936, tied=False),
    "google/gemma-3-12b-it": _gemma(3840, 15360, 48, (16, 8, 256)),
    "Qwen/Qwen3-14B": _layout("qwen3", 5120, 17408, 40, (40, 8, 128), 151936, tied=False),
    "google/gemma-3-27b-it": _gemma(5376, 21504, 62, (32, 16, 128)),
    "Qwen/Qwen3-32B": _layout("qwen3", 5120, 25600, 64, (64, 8, 128), 151936, tied=False),
    "meta-llama/Llama-3.3-70B-Instruct": _layout(
        "llama", 8192, 28672, 80, (64, 8, 128), 128256, tied=False
    ),
}
"""By name on the hub, from small to large; the numbers of their config.json."""
SMOKE = {"tiny": _layout("llama", 64, 256, 2, (1, 1, 64), 1024)}


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
    """That plans it."""

    def fits(self, gpu_gib: int, ram_gib: int) -> bool:
        """Whether `plan` says so."""
        return _ram_gib(self) <= ram_gib and _gpu_gib(self) <= gpu_gib


def method_of(rung: Rung) -> str:
    """Which of METHODS a rung is."""
    if rung.effect != TRAINED:
        return METHODS[0]
    return METHODS[1] if "model.lora.rank" in rung.change else METHODS[2]


def _short(name: str) -> str:
    """The name of a model without that of its owner."""
    return name.rpartition("/")[2]


def _set_options(sets: Sequence[str]) -> list[str]:
    """The options of SETS and `sets`."""
    return [word for text in (*SETS, *sets) for word in ("--set", text)]


def plan_layout(name: str, layout: Mapping[str, Any], rungs: Sequence[Rung]) -> list[Row]:
    """A row for each of `rungs` that exists, and one for SETS alone; progress on stderr."""
    rows: list[Row] = []

    def add(step: Step, method: str) -> None:
        words = [*PROGRAM.split(), "plan", "--model", name, "--gpus", "1"]
        line = shlex.join([*words, *_set_options(step.sets)])
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
    options = {"--gpus": "1", "--gpu-memory": "1MiB", "--ram": "1MiB"}
    described = target.describe(options, detect_machine(), [])
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / _short(name)
        base.mkdir()
        save_tokenizer(base)
        transformers.AutoConfig.for_model(**layout).save_pretrained(base)
        args = CliArgs(model="language", sets=(f"model.pretrained={base}", *SETS))
        resolved = resolve_with(described, args, ("engine.name=local",))
        with open_planner(resolved, described) as planner:

            def plan_with(change: Change) -> Plan:
                sets = [f"{key}={plain(value)}" for key, value in change.items()]
                return planner.plan(resolve_with(described, args, ("engine.nproc=1", *sets)))

            plan = planner.plan(resolved)
            add(Step(_FIRST, {}, plan), METHODS[0])
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
    model = _short(row.layout)
    return model if row.method in METHODS[1:] else f"{model}, {row.rung}"


def ways(rows: Sequence[Row]) -> list[str]:
    """The way to fine-tune each model on each GPU, as the lines of a Markdown table.

    It is the first of WAYS that fits; what offload needs has columns of its own.
    """
    gpus = [f"{gpu} GiB" for gpu in FINE_TUNED_GIB]
    cells = []
    for layout in LAYOUTS:
        by_rung = {row.rung: row for row in rows if row.layout == layout}
        if not by_rung:
            continue
        offload = by_rung.pop(_OFFLOAD, None)
        needs = "–"
        if offload is not None:
            needs = f"{_gpu_gib(offload)} GiB, {_ram_gib(offload)} GiB"
        fitting = [_way(by_rung, gpu) for gpu in FINE_TUNED_GIB]
        cells.append([f"`{layout}`", *fitting, needs])
    return markdown(["model", *gpus, "full, offload: GPU, main memory"], cells)


def _way(by_rung: Mapping[str, Row], gpu_gib: int) -> str:
    """The first of WAYS that fits a GPU; main memory is not looked at."""
    for rung, way in WAYS.items():
        if rung in by_rung and _gpu_gib(by_rung[rung]) <= gpu_gib:
            return way
    return "–"


def _gpu_gib(row: Row) -> int:
    """The memory of a GPU that fits, rounded up."""
    return math.ceil((row.device_bytes + CONTEXT_BYTES) / 2**30)


def _ram_gib(row: Row) -> int:
    """The main memory that fits, rounded up."""
    return math.ceil(row.host_bytes / (1 - MARGIN) / 2**30)


def ways_commands(rows: Sequence[Row]) -> list[str]:
    """The command of each of WAYS, as the lines of a Markdown table."""
    sets = {row.rung: row.sets for row in rows if row.layout in LAYOUTS}
    cells = []
    for rung, way in WAYS.items():
        words = [*PROGRAM.split(), "--model", "MODEL", "--data", "chats.jsonl"]
        if rung in sets:
            cells.append([way, f"`{shlex.join([*words, *_set_options(sets[rung])])}`"])
    return markdown(["way", "command"], cells)


def main() -> None:
    """Plan the layouts, print the table, and write JSON after each layout where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--resume", action="store_true", help="keep the layouts of that file")
    parser.add_argument("--only", nargs="+", choices=LAYOUTS, help="these models; default: all")
    parser.add_argument("--smoke", action="store_true", help="a tiny layout")
    options = parser.parse_args()
    known = load_rows(options.json, Row)[2] if options.resume else []
    facts = machine(("torch", "transformers"))
    layouts = SMOKE if options.smoke else LAYOUTS
    planned = {row.layout for row in known}
    if options.only:
        layouts = {name: layouts[name] for name in LAYOUTS if name in {*options.only, *planned}}
    rows: list[Row] = []
    for row in plans(layouts, known):
        rows.append(row)
        if options.json:
            done = {each.layout for each in rows}
            later = [each for each in known if each.layout in LAYOUTS and each.layout not in done]
            save_rows(options.json, command("fits", ()), facts, [*rows, *later])
    print(listed(facts), *table(rows), "", *ways(rows), sep="\n")


if __name__ == "__main__":
    main()
