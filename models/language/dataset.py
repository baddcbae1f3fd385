"""Dataset of a run: corpus, splits, samples and facts, and the noise of a noise control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError, SplitName
from models.common.data_files import OnBad, listed, unknown_embedded
from models.language.encoded import encode
from models.language.readers.corpus import NO_COLUMNS, Corpus, from_records, read_corpus
from models.language.rows import Dialogues, Pairing, Rules, TokenWindows
from models.language.tokenizer import Tokenizer


def permutation_across_labels(labels: np.ndarray, seed: int) -> np.ndarray:
    """Random permutation that gives each request the answer of a request with another label.

    Random, not shifted by a constant: a model could learn which label answers which from a
    constant shift. Raises DataError if more than half of `labels` are equal.
    """
    counts = np.bincount(labels)
    if 2 * counts.max() > len(labels):
        raise DataError(
            f"the noise control cannot permute {len(labels)} answers: {counts.max()} of them "
            "answer one kind of request",
            where="data.control=noise",
            allowed="at most half of a split's exchanges per kind of request",
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    for i in range(len(order)):
        while labels[order[i]] == labels[i]:
            # A swap with j fixes i and must not break j. No label has more than half, so such a j
            # exists and the loop ends with probability one.
            j = int(rng.integers(len(order)))
            if labels[order[j]] != labels[i] and labels[order[i]] != labels[j]:
                order[i], order[j] = order[j], order[i]
    return order


def permuted(exchanges: np.ndarray, labels: np.ndarray, seed: int, *, with_true: bool) -> Pairing:
    """Pair each exchange with the answer to a request of another label; then, if asked, its own."""
    answers = exchanges[permutation_across_labels(labels, seed)]
    if not with_true:
        return Pairing(exchanges, answers)
    return Pairing(np.tile(exchanges, 2), np.concatenate((answers, exchanges)), len(exchanges))


def read(path: str, answers: Path | None, on_bad: OnBad, columns: Mapping[str, str] = NO_COLUMNS) -> Corpus:
    """Read the corpus at `data.path`; see read_corpus. Raises DataError."""
    if not path.startswith("embedded:"):
        return read_corpus(Path(path).expanduser(), answers, on_bad, columns)
    from models.language import embedded

    if path not in embedded.READERS:
        raise unknown_embedded(path, embedded.READERS)
    return from_records(path, embedded.READERS[path]())


Splits = dict[SplitName, TokenWindows] | dict[SplitName, Dialogues]


def build_splits(
    corpus: Corpus, groups: Mapping[SplitName, Sequence[str]], tokenizer: Tokenizer, rules: Rules
) -> Splits:
    """The samples of each split, whose `groups` are given. Raises DataError.

    Neither text nor, for a large corpus, tokens are in memory.
    """
    encoded, names, labels = encode(corpus, tokenizer), corpus.names, corpus.labels
    members, noise = corpus.members(groups), rules.control == "noise"
    if not corpus.is_text:
        dialogues = {}
        for side, (name, numbers) in enumerate(members.items()):
            pairing, seed, with_true = Pairing(numbers, numbers), rules.seed + side, name != "train"
            if noise:
                pairing = permuted(numbers, labels[numbers], seed, with_true=with_true)
            dialogues[name] = Dialogues(encoded, names, labels, pairing, rules)
        return dialogues
    windows = {
        name: TokenWindows(encoded, names, numbers, tokenizer, rules, (rules.seed, side) if noise else None)
        for side, (name, numbers) in enumerate(members.items())
    }
    tokens = windows["train"].tokens
    if tokens < rules.length:
        raise DataError(
            f"the training split has {tokens} tokens, less than one sample of {rules.length}",
            where="data.path, data.seq_len",
            allowed="at least one sample",
            fix=f"--set data.seq_len={max(8, tokens // 16)}  or add data",
        )
    return windows


def describe(corpus: Corpus, splits: Splits) -> dict[str, Any]:
    """Facts of the data."""
    assumed = "; ".join(f"{encoding}: {listed(names, 1)}" for encoding, names in corpus.encodings.items())
    dialogues = [split for split in splits.values() if isinstance(split, Dialogues)]
    truncated, encoded = sum(split.truncated for split in dialogues), splits["train"].encoded
    facts = {
        "source": corpus.source.name,
        "kind": "text" if corpus.is_text else "conversations",
        "format": corpus.source.format,
        **({"encoding": assumed} if assumed else {}),
        "bytes": corpus.source.size or int(encoded.text_bytes.sum()),
        ("documents" if corpus.is_text else "exchanges"): len(corpus),
        "mean_tokens": round(len(encoded) / len(corpus), 1),
        "tokens": {name: split.tokens for name, split in splits.items()},
        "truncated_prompts": truncated,
        **corpus.left_out,
        "skipped_rows": corpus.skipped + sum(split.skipped for split in dialogues),
    }
    if truncated:
        most, length = max(split.whole_length for split in dialogues), dialogues[0].length
        advice = f", or set  --seq-len {most}" if most > length else ""
        facts["warning"] = f"{truncated} prompts lose their start: shorten them{advice}"
    return facts
