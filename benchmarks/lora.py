"""What do LoRA adapters save, compared with training all weights of a pretrained model?

    python -m benchmarks.lora                            # a Llama of 50M parameters
    python -m benchmarks.lora --smoke                    # the same code on a tiny model

All train a random model in the layout of Llama on the built-in commands, as a user does, each in a
process of its own. Memory is the peak of the process, with the interpreter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
import transformers

from benchmarks.figures import command, listed, machine, markdown, save_rows
from gearshift.models.common import subwords
from gearshift.models.language.commands import read_conversations

ROOT = Path(__file__).parents[1]
ENTRIES = 1024
LORA = ["--set", "model.lora.rank=8"]
CONTENDERS = {
    "all weights": [],
    "LoRA, rank 8": LORA,
    "LoRA, rank 8, bf16": [*LORA, "--precision", "bf16"],
    "LoRA, rank 8, bf16, base in 4 bits": [
        *LORA, "--precision", "bf16", "--set", "model.quantize=nf4"
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A run."""

    name: str
    trained: int
    """Trained parameters."""
    peak_bytes: int
    checkpoint_bytes: int
    steps: int


def save_tokenizer(folder: Path) -> None:
    """A tokenizer with ENTRIES tokens, in the layout of a download."""
    records = read_conversations()
    texts = [text for each in records for text in (*(turn.text for turn in each.before), each.text)]
    specials = ["<s>", "</s>"]
    inner: tokenizers.Tokenizer = subwords.train_byte_bpe(texts, ENTRIES, specials)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


def save_model(folder: Path, width: int, layers: int) -> None:
    """A random model and its tokenizer, in the layout of a download."""
    save_tokenizer(folder)
    config = transformers.LlamaConfig(
        vocab_size=ENTRIES,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def measure(name: str, base: Path, steps: int, folder: Path) -> Row:
    """The run of a contender. Raises SystemExit if it fails."""
    out = folder / "run"
    line = [
        *(sys.executable, "-m", "launcher", "--model", "language", "--json"),
        *("--data", "embedded:commands", "--set", f"model.pretrained={base}"),
        *("--max-steps", str(steps), "--seq-len", "128", "--batch-size", "4"),
        *("--set", "train.global_batch=4", "--set", "eval.every=null", "--set", "eval.last=false"),
        *("--set", "loader.workers=0", "--set", "train.preview=false"),
        *("--out", str(out), *CONTENDERS[name]),
    ]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    result = json.loads((out / "result.json").read_text())
    files = list((out / "last").resolve().iterdir())
    state = json.loads((out / "last" / "state.json").read_text())
    trained = {name for group in state["groups"] for name in group["names"]}
    count = sum(torch.Size(shape).numel() for n, shape in state["shapes"].items() if n in trained)
    size = sum(file.stat().st_size for file in files)
    return Row(name, count, result["peak_memory_bytes"]["host"], size, steps)


def rows(width: int, layers: int, steps: int) -> Iterator[Row]:
    """A row for each contender."""
    with tempfile.TemporaryDirectory() as base:
        save_model(Path(base), width, layers)
        for name in CONTENDERS:
            with tempfile.TemporaryDirectory() as folder:
                yield measure(name, Path(base), steps, Path(folder))


def table(found: Sequence[Row]) -> list[str]:
    """The rows as the lines of a Markdown table."""
    sizes = ((row, row.peak_bytes / 2**20, row.checkpoint_bytes / 2**20) for row in found)
    cells = (
        [r.name, f"{r.trained:,}", f"{peak:,.0f} MiB", f"{file:,.1f} MiB"]
        for r, peak, file in sizes
    )
    return markdown(["trained", "parameters", "peak memory", "a checkpoint"], cells, numbers=3)


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="a tiny model")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    facts = machine(("torch", "transformers", "peft"))
    found = list(rows(64, 2, 2) if options.smoke else rows(512, 12, 8))
    if options.json:
        save_rows(options.json, command("lora", sys.argv[1:]), facts, found)
    print(listed(facts), *table(found), sep="\n")


if __name__ == "__main__":
    main()
