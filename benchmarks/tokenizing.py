"""How fast is a corpus tokenized, against the tokenizers library on one document after the other?

    python -m benchmarks.tokenizing --mb 200 --rounds 3

The text is pieces of the source of Python's standard library, in random order. Every contender
encodes it with the same tokenizer, which was trained on it: the library one document at a time, the
library with its threads, and Gearshift, which also reads the files and writes its cache.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.figures import rows, table
from models.common.data_files import CACHE_VARIABLE
from models.language import bpe
from models.language.dataset import read
from models.language.encoded import encode
from models.language.readers.corpus import Corpus

VOCABULARY = 32_000
LETTERS = 4000
"""Of a document."""
REFERENCE = "library, one document at a time"


def main() -> None:
    """Print seconds per megabyte of each contender, and the ratio to the library."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mb", type=float, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus.jsonl")
        write(path, options.mb)
        os.environ[CACHE_VARIABLE] = str(Path(folder, "cache"))
        began = time.perf_counter()
        corpus = read(str(path), None, "stop")
        print(f"{options.mb:g} MB read and indexed in {time.perf_counter() - began:.1f} s")
        every = max(1, corpus.source.size // bpe.TRAINED_ON)
        began = time.perf_counter()
        tokenizer = bpe.train(corpus.texts(np.arange(len(corpus))[::every]), VOCABULARY)
        print(f"trained {tokenizer.size} entries in {time.perf_counter() - began:.1f} s")
        contenders = contenders_for(corpus, tokenizer)
        measured = []
        for number in range(options.rounds):
            os.environ[CACHE_VARIABLE] = str(Path(folder, f"cache{number}"))
            seconds = {name: seconds_of(run) / options.mb for name, run in contenders.items()}
            measured.append(seconds)
    print(table(rows(measured, REFERENCE), "ms/MB"))


def contenders_for(corpus: Corpus, tokenizer: bpe.BpeTokenizer) -> dict[str, Callable[[], object]]:
    """What encodes all of `corpus`, by name."""
    inner = tokenizer.inner

    def one_by_one() -> None:
        for _, document in corpus.documents():
            np.array(inner.encode(document.text, add_special_tokens=False).ids, np.uint16)

    def in_threads() -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        for batch in batches(corpus):
            for found in inner.encode_batch_fast(batch, add_special_tokens=False):
                np.array(found.ids, np.uint16)
        del os.environ["TOKENIZERS_PARALLELISM"]

    return {
        REFERENCE: one_by_one,
        "library, encode_batch_fast": in_threads,
        "Gearshift": lambda: encode(corpus, tokenizer),
    }


def batches(corpus: Corpus) -> Iterator[list[str]]:
    """Texts in batches."""
    batch: list[str] = []
    for _, document in corpus.documents():
        batch.append(document.text)
        if len(batch) == 256:
            yield batch
            batch = []
    yield batch


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def write(path: Path, mb: float) -> None:
    """Write documents as JSON Lines: parts of Python's own source, each with a number."""
    texts = []
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        texts.append(file.read_text(encoding="utf-8", errors="ignore"))
    draw, written = random.Random(0), 0
    with path.open("w", encoding="utf-8") as out:
        while written < mb * 1e6:
            text = draw.choice(texts)
            start = draw.randrange(max(1, len(text) - LETTERS))
            written += out.write(json.dumps({"text": f"{written} {text[start : start + LETTERS]}"}))
            written += out.write("\n")


if __name__ == "__main__":
    main()
