"""What does training reach on a GPU, compared with plain PyTorch, fully_shard and DeepSpeed?

    python -m benchmarks.gpu                  # one GPU, in 45 minutes
    python -m benchmarks.gpu --minutes 9      # what fits; then the rest with --continue
    python -m benchmarks.gpu --smoke          # the same code on a CPU, tiny

What decides most comes first: the tests that compare numbers, speed beside plain PyTorch and
fully_shard, offload beside DeepSpeed, weights in 4 bits, the other families, then all else. Each
part has a process of its own for each rank, and a limit of time: one that fails is a row, and the
next one starts. None starts that takes longer than there is time, as an earlier result or its
estimate says. Exit code 1: a part failed. docs/results.md explains the tables.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks import isolated, lora, ours
from benchmarks.clock import StepClock
from benchmarks.family_work import FamilyWork
from benchmarks.figures import command, load_rows, machine, markdown, save_rows
from benchmarks.gpu_parts import (
    LLAMA,
    OUT_OF_TIME,
    ROOT,
    Part,
    contender_title,
    model_title,
    needed_s,
    parts,
)
from benchmarks.isolated import Report
from benchmarks.plain import PlainWork
from benchmarks.probe import STEPS, watch
from benchmarks.raw_engines import RAW
from benchmarks.workload import Work
from gearshift.engines.device import pick_device, use, use_threads
from gearshift.launcher.base.environment import limit_spinning
from gearshift.models.language.config import SIZES as LANGUAGE_SIZES
from gearshift.models.language.embedded import read_documents
from gearshift.training.throughput import peak_flops

RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
IMPORTED = ("torch._dynamo", "benchmarks.gpu", "gearshift.launcher.run.worker", "transformers")
"""Imports that all parts share; none of them touches a GPU, as DeepSpeed's may."""
SIZES = {"124M": (1024, 32), "1.3B": (2048, 8), "0.5B": (256, 32), "tiny": (32, 2)}
"""Sequence length and micro-batch of each size; tiny is for a smoke test."""
LLAMAS = {"0.5B": (2048, 8), "tiny": (64, 2)}
"""Width and layers."""
WARMUP, TIMED = 6, 15
UNPACKED_SHARE = 0.34
"""One of three documents to validate and one to test: each row of the training split holds one."""
ANCHORS = {
    "local": ("local",),
    "ddp": ("local", "ddp"),
    "fsdp": ("fsdp",),
    "zero2": ("zero2",),
    "zero2-offload": ("zero2-offload own Adam", "zero2-offload"),
}
"""The plain contenders that an engine of ours is held against: the fastest of them."""
GOALS = {
    ("124M", "local"): 0.579,
    ("1.3B", "local"): 0.722,
    ("124M", "fsdp"): 0.469,
    ("1.3B", "fsdp"): 0.682,
    ("124M", "zero2-offload"): 1.3 * 0.224,
    ("1.3B", "zero2-offload"): 1.3 * 0.227,
}
"""The least share of the ceiling on one H200, by size and engine: those of plain PyTorch,
fully_shard, and 1.3 times that of DeepSpeed, measured on an H200 before this benchmark existed. On
any other GPU a goal is a ratio to the anchor: 1, and 1.3 with offload."""


NOT_MEASURED = ["not measured"]


def ceiling(report: Report, is_smoke: bool) -> None:
    """FLOP/s of a square bf16 matrix product at its best, and the name of the GPU."""
    if is_smoke:
        report({"flops": _matrix_flops("cpu", 128, 0.05), "gpu": "none", "gpus": 0})
        return
    if not torch.cuda.is_available():
        raise RuntimeError("this machine has no GPU; --smoke runs on a CPU")
    flops = _matrix_flops("cuda", 8192, 3.0)
    report({"flops": flops, "gpu": torch.cuda.get_device_name(), "gpus": torch.cuda.device_count()})


def _matrix_flops(device: str, side: int, seconds: float) -> float:
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best, stop = 0.0, time.perf_counter() + seconds
    while (begin := _now(device)) < stop:
        for _ in range(10):
            a @ b
        best = max(best, 10 * 2 * side**3 / (_now(device) - begin))
    return best


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def tests(report: Report, path: str) -> None:
    """The outcome of every test marked gpu in the file `path`, reported as each one ends."""
    arguments = ["-p", "no:xdist", "-o", "addopts=", "-m", "gpu", "-v", "--color=no", path]
    ranked = re.compile(r"(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)")
    environment = {name: value for name, value in os.environ.items() if not ranked.fullmatch(name)}
    outcomes: dict[str, str] = {}
    pytest = [sys.executable, "-m", "pytest", *arguments]
    with subprocess.Popen(
        pytest, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if match := re.match(r"\S+?::(.+) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", line):
                outcomes[match[1]] = match[2].lower()
                report({"tests": outcomes})
    if not outcomes:
        raise RuntimeError("pytest reported no test")


def step(report: Report, **facts: Any) -> None:
    """Train as the arguments of a step say, and report what the probe found; ends the process.

    Every contender has what Gearshift gives a rank: its device, the allocator of device memory, the
    threads, and the variables without which DeepSpeed cannot be imported on some machines.
    """
    case = SimpleNamespace(**facts)
    is_smoke = case.size == "tiny"
    case.device = "cpu" if is_smoke else "cuda"
    case.threads = 1 if is_smoke else max(1, (os.cpu_count() or 1) // int(os.environ["WORLD_SIZE"]))
    case.backend = "eager" if is_smoke else "inductor"
    case.folder = Path(tempfile.gettempdir())  # that of all ranks
    local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    use(pick_device(case.device, int(os.environ["LOCAL_RANK"]), local_size))
    use_threads(case.threads, local_size)
    os.environ |= {"DS_ACCELERATOR": case.device, "OMP_NUM_THREADS": str(case.threads)}
    os.environ.setdefault("DS_IGNORE_CUDA_DETECTION", "1")
    os.environ.pop("TORCH_CUDA_ARCH_LIST", None)  # DeepSpeed cannot parse 9.0a
    warmup, timed = (1, 1) if is_smoke else (WARMUP, TIMED)
    case.steps = warmup + timed + STEPS
    # With the elements of an axis of its head; another family has no head of many.
    if case.family == "language":
        (train, figures), vocabulary = _language(case), LANGUAGE_SIZES[case.size].vocabulary
    elif case.family == LLAMA:
        (train, figures), vocabulary = _llama(case), lora.ENTRIES
    else:
        (train, figures), vocabulary = _family(case), -1

    def advance(step: int) -> None:
        try:
            next(watching)
        except StopIteration:
            report(figures)
            os._exit(0)  # before an evaluation and a checkpoint, which are not measured

    clock = StepClock(warmup, warmup + timed, case.device, advance)
    watching = watch(clock, vocabulary, figures)
    next(watching)
    with clock:
        train()
    raise RuntimeError(f"training ended after {clock.ticks} steps")


def _language(case: Any) -> tuple[Callable[[], object], dict[str, Any]]:
    """What trains the language family, and the size of a step."""
    seq_len, micro_batch = SIZES[case.size]
    options: dict[str, Any] = {
        **{"seq_len": seq_len, "device": case.device, "threads": case.threads, "precision": "bf16"},
        **{"compile": "on" if case.compile else "off", "backend": case.backend},
        **{"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])},
    }
    if not case.packed and case.side != "plain":
        options |= {"data": str(_three_documents(case)), "eval_share": UNPACKED_SHARE}
    kind = PlainWork if case.side == "plain" else Work
    work = kind(case.size, micro_batch, case.steps, **options)
    figures = {"flops": work.flops(), "samples": micro_batch}
    if case.side != "ours":
        return partial(RAW[case.engine], work), figures
    workers = 0 if case.device == "cpu" else 4  # the family's default
    more = {"loader.workers": workers, "compile": "auto" if case.compile else "off"} | case.settings
    return partial(ours.train, work, case.engine, case.folder / "run", more), figures


def _llama(case: Any) -> tuple[Callable[[], object], dict[str, Any]]:
    """What trains adapters of a pretrained model, and the size of a step in unknown operations."""
    base, (seq_len, micro_batch) = case.folder / "base", SIZES[case.size]
    with torch.device(case.device):
        lora.save_model(base, *LLAMAS[case.size])
    options = {"device": case.device, "threads": case.threads, "precision": "bf16"}
    work = Work(case.size, micro_batch, case.steps, seq_len, compile="auto", **options)
    more = {"model.pretrained": str(base), **case.settings}
    figures = {"flops": None, "samples": micro_batch}
    return partial(ours.train, work, case.engine, case.folder / "run", more), figures


def _family(case: Any) -> tuple[Callable[[], object], dict[str, Any]]:
    """What trains another family by its defaults, and the size of a step."""
    work = FamilyWork(case.family, case.size, case.steps, case.device, case.folder)
    figures = {"flops": work.flops(), "samples": work.samples}
    if case.side != "ours":
        return partial(work.by_hand, case.backend if case.compile else None), figures
    return partial(
        work.train, case.engine, {"engine.threads": case.threads, **case.settings}
    ), figures


def _three_documents(case: Any) -> Path:
    """A folder of three long texts, the same one on all ranks."""
    text = "\n".join(document.text for document in read_documents())
    size = 20_000 if case.device == "cpu" else len(text) // 3
    own, shared = Path(tempfile.mkdtemp(dir=case.folder)), case.folder / "texts"
    for number in range(3):
        part = text[number * size : (number + 1) * size]
        (own / f"{number}.txt").write_text(part, encoding="utf-8")
    with suppress(OSError):  # another rank was faster
        own.rename(shared)
    return shared


def measure(part: Part, limit_s: float, is_smoke: bool) -> Part:
    """`part` with its result; an error becomes its status."""
    # Each part has its own temporary folder, but what one has compiled serves the others.
    graphs = Path(tempfile.gettempdir()) / "gearshift-benchmark-graphs"
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(graphs)}
    variables |= {"DS_ACCELERATOR": "cpu"} if is_smoke else {}
    function = part.function if ":" in part.function else f"benchmarks.gpu:{part.function}"
    result = isolated.run(function, part.arguments, part.gpus, limit_s, variables, part.nodes)
    status = f"failed: {result.error}" if result.error else "measured"
    if result.is_late and limit_s < part.limit_s:
        status = OUT_OF_TIME
    return replace(part, status=status, seconds=result.seconds, figures=result.figures)


def run(
    wanted: Sequence[Part], options: argparse.Namespace, facts: dict[str, str], until: float
) -> list[Part]:
    """Every part with its result; saved after each one.

    `facts` of the machine; no part starts that ends after `until`, of time.monotonic. With
    --continue, what an earlier call has measured is kept; exits if that was another machine.
    """
    rows, needed = {part.name: part for part in wanted}, needed_s(wanted, options.json)
    if options.resume and options.json.exists():
        options.command, where, earlier = load_rows(options.json, Part)
        if {**where, **facts} != where:
            sys.exit(f"error: {options.json} is of another machine or library; remove it to start")
        rows |= {row.name: row for row in earlier if row.name in rows}
    for name, part in rows.items():
        left = until - time.monotonic()
        if part.status.startswith("not run") and left >= needed[name]:
            rows[name] = row = measure(part, min(part.limit_s, left), options.smoke)
            print(f"{name}: {row.status}, {row.seconds:.0f} s", file=sys.stderr, flush=True)
        if name == "ceiling":
            found = rows[name].figures
            if rows[name].status.startswith("failed"):
                sys.exit(f"error: {rows[name].status.removeprefix('failed: ')}")
            if found.get("gpus", options.nproc) < options.nproc and not options.smoke:
                sys.exit(f"error: --nproc {options.nproc}: this machine has GPUs: {found['gpus']}")
            facts["gpu"] = found.get("gpu", "unknown")
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            save_rows(options.json, options.command, facts, list(rows.values()))
    return list(rows.values())


def checks(rows: Sequence[Part]) -> list[str]:
    """The GPU and what decides there, and the outcomes of its tests with those that failed."""
    found = []
    for row in rows:
        if row.function == "step":
            continue
        texts = []
        if gpu := row.figures.get("gpu"):
            flops, peak = row.figures["flops"], peak_flops(gpu, "bf16")
            texts += [f"{gpu}: {flops / 1e12:,.3g} TFLOP/s of a bf16 matrix product"]
            texts += [f"{flops / peak:.2f} of its data sheet" if peak else "in no data sheet"]
        outcomes = row.figures.get("tests", {})
        texts += [
            f"{count} {outcome}" for outcome, count in sorted(Counter(outcomes.values()).items())
        ]
        texts += [row.status] if row.status != "measured" else []
        texts += [name for name, outcome in outcomes.items() if outcome in ("failed", "error")]
        found.append([row.name, _cell(", ".join(texts), 600)])
    return markdown(["check", "result"], found) if found else NOT_MEASURED


def speed(rows: Sequence[Part]) -> list[str]:
    """A row for each contender."""
    heads = [
        "model",
        "contender",
        "documents",
        "GPUs",
        "ms/step",
        "samples/s per GPU",
        "share of ceiling",
    ]
    heads += ["of its anchor", "goal", "peak GiB", "graphs", "launches", "waits"]
    found = [_speed(row, rows) for row in rows if row.function == "step"]
    return markdown(heads, found, len(heads) - 3) if found else NOT_MEASURED


def _speed(row: Part, rows: Sequence[Part]) -> list[str]:
    case, figures = row.arguments, row.figures
    has_none = case["side"] == "plain" or case["family"] != "language"
    documents = "–" if has_none else "packed" if case["packed"] else "one per row"
    who = [model_title(case), contender_title(case), documents, str(row.gpus)]
    if "seconds" not in figures:
        return [*who, _cell(row.status), *["–"] * 8]
    top = next((other.figures for other in rows if other.name == "ceiling"), {})
    flops, best = figures["flops"], top.get("flops")
    share = flops / figures["seconds"] / best if flops and best else None
    anchors = [
        _rate(other) for other in rows if is_anchor(other, row) and "seconds" in other.figures
    ]
    ratio = _rate(row) / max(anchors) if anchors else None
    later, waits = figures["later_graphs"], figures["waits"]
    return [
        *who,
        f"{1e3 * figures['seconds']:.1f}",
        f"{figures['samples'] / figures['seconds']:,.1f}",
        _number(share, ".3f"),
        _number(ratio, ".2f"),
        _goal(row, share, ratio, has_shares="H200" in top.get("gpu", "")),
        _number(figures["peak_bytes"], ".1f", 2**30),
        f"{figures['graphs']}" + (f" + {later}" if later else ""),
        f"{figures['launches']:,}",
        "–" if waits is None else f"{sum(waits.values()):g}",
    ]


def is_anchor(row: Part, of: Part) -> bool:
    """Whether `row` is one that `of`, an engine of ours, is held against.

    For another family than language that is its model in a loop by hand.
    """
    case, mine = row.arguments, of.arguments
    if case.get("side") in (None, "ours") or mine["side"] != "ours" or row.gpus != of.gpus:
        return False
    side = "plain" if mine["family"] == "language" else "raw"
    is_same = [case[key] for key in ("family", "size", "side")] == [
        mine["family"],
        mine["size"],
        side,
    ]
    return is_same and case["engine"] in ANCHORS.get(mine["engine"], ())


def _rate(row: Part) -> float:
    """FLOP/s of the model; samples per second where its operations are unknown."""
    return float((row.figures["flops"] or row.figures["samples"]) / row.figures["seconds"])


def _goal(row: Part, share: float | None, ratio: float | None, has_shares: bool) -> str:
    case = row.arguments
    if has_shares:
        goal = GOALS.get((case["size"], case["engine"])) if row.gpus == 1 else None
    else:
        goal = 1.3 if case["engine"] == "zero2-offload" else 1.0
    value = share if has_shares else ratio
    if case["side"] != "ours" or case["settings"] or goal is None or value is None:
        return "–"
    return f"{goal:.3f} {'reached' if value >= goal else 'missed'}"


def _number(value: float | None, form: str, unit: float = 1.0) -> str:
    return "–" if value is None else f"{value / unit:{form}}"


def _cell(text: str, longest: int = 160) -> str:
    """`text` in one cell of a table."""
    return text.replace("|", "/").replace("`", "'").replace("<", "(").replace(">", ")")[:longest]


TABLES = (checks, speed)


def main() -> int:
    """Measure, print the tables, and write JSON and the tables of the docs."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--nproc", type=int, default=1, help="GPUs, one rank each")
    parser.add_argument("--minutes", type=float, default=45.0, help="then no part starts any more")
    parser.add_argument(
        "--continue", dest="resume", action="store_true", help="only what was not run"
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--json", type=Path, help="the figures; default: benchmarks/results")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    if options.json is None and not options.smoke:
        options.json = RESULTS
    options.command = command("gpu", sys.argv[1:])
    limit_spinning()  # as Gearshift does, for every contender
    isolated.preload(IMPORTED)
    facts = machine(("torch", "triton", "deepspeed", "transformers"))
    rows = run(parts(options.nproc, options.smoke), options, facts, until)
    for table in TABLES:
        print("\n".join(table(rows)), end="\n\n")
    if options.json == RESULTS:
        subprocess.run([sys.executable, "-m", "scripts.write_docs", "results"], cwd=ROOT)
    if failed := [row.name for row in rows if row.status.startswith("failed")]:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    if left := [row.name for row in rows if row.status == OUT_OF_TIME]:
        needed = needed_s(rows, options.json)
        minutes = sum(needed[name] for name in left) / 60
        print(
            f"not run yet: {len(left)} of {len(rows)}, about {minutes:.0f} minutes with --continue:"
        )
        print(*(f"  {name}" for name in left), sep="\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
