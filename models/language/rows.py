"""Samples of a run: its data, rows of packed text, and their collation into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import lgamma
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch

from gearshift.models.base import DataError, Draws, Groups, SplitName
from gearshift.models.common.data_reports import OnBad, listed, unknown_embedded
from gearshift.models.common.family import padded, spread_positions
from gearshift.models.language.encoded import Encoded, encode
from gearshift.models.language.model import IGNORE
from gearshift.models.language.readers.corpus import Corpus, from_records, text_of
from gearshift.models.language.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gearshift.models.language.dialogues import Dialogues

MULTIPLE = 8
"""Rows of unequal length are padded to a multiple of this, the tile of tensor cores."""


@dataclass(frozen=True)
class Row:
    """One sample: `inputs` and, for each, the next token or IGNORE in `labels`; int64 [time]."""

    inputs: np.ndarray
    labels: np.ndarray
    name: str
    """Name of the document or conversation."""
    starts: Sequence[int] = ()
    """Where further documents begin within the row."""
    bytes_per_token: float = 0.0
    """UTF-8 bytes of text per label, on average over the split."""
    matched: bool = False
    """In a noise control: the answer is the true one, evaluated for comparison only."""


def collate(rows: Sequence[Row], pad: int, length: int | None) -> dict[str, Any]:
    """Collate `rows`, padded at the end to `length`, or to the longest in multiples of 8.

    `input_ids`, `labels` int64 and `attention_mask` bool, each [batch, time]; `boundaries` int32,
    for Transformer.forward, where padding belongs to the last document of its row; `matched` bool
    [batch]; `units`, the number of labels; `tokens`, that of inputs; `meta`, the name of each
    row's source.
    """
    inputs = padded([row.inputs for row in rows], pad, length, MULTIPLE)
    labels = padded([row.labels for row in rows], IGNORE, length, MULTIPLE)
    sizes = torch.tensor([len(row.inputs) for row in rows])
    time = inputs.shape[1]

    boundaries: list[int] = []
    begin = 0
    for row in rows:
        boundaries += [begin, *(begin + start for start in row.starts)]
        begin += time
    boundaries.append(begin)

    return {
        "input_ids": inputs,
        "labels": labels,
        "attention_mask": torch.arange(time) < sizes[:, None],
        "boundaries": torch.tensor(boundaries, dtype=torch.int32),
        "bytes_per_token": rows[0].bytes_per_token,
        "matched": torch.tensor([row.matched for row in rows]),
        "units": int((labels != IGNORE).sum()),
        "tokens": int(sizes.sum()),
        "meta": [row.name for row in rows],
    }


@dataclass(frozen=True)
class Rules:
    """Settings that turn records into samples."""

    length: int
    on_bad: OnBad
    control: Literal["real", "noise"]
    seed: int
    single_document: bool
    """A row of text holds one document only."""
    longest: int | None = None
    """The length that the model allows; None: any."""


_COUNTED = 10_000
"""Rows whose labels are counted for the chance of a noise control."""


class TokenWindows:
    """Rows of tokens from documents laid end to end; each token is an input and a label.

    The inputs of a document are the start token and its text, its labels are the text and the end
    token. A row may hold the end of one document and the start of the next; with
    `single_document` it never does, and the last row of a document is short. In a noise control
    the labels of each row are shuffled, which leaves only token frequencies.
    """

    temperature = 0.8
    """The divisor of the logits where a row is continued."""
    skipped = truncated = whole_length = 0
    """See Dialogues."""

    def __init__(
        self, encoded: Encoded, corpus: Corpus, numbers: np.ndarray, rules: Rules, side: int
    ) -> None:
        """`numbers` are the documents of a split, which is number `side`."""
        self.length = self.row_length = rules.length
        self.mean_length = float(rules.length)
        self._is_noise = rules.control == "noise"
        self._seed = (rules.seed, side)
        self._encoded = encoded
        self._names = corpus.names[numbers]
        # The last token of a document is no input.
        self._starts = np.append(0, (encoded.sizes[numbers] - 1).cumsum())
        self._shifts = encoded.offsets[numbers] - self._starts[:-1]
        self.tokens = int(self._starts[-1])
        text_bytes = encoded.text_bytes[numbers].sum()
        self._bytes_per_token = float(text_bytes / self.tokens)
        self._blocks = self._starts if rules.single_document else self._starts[[0, -1]]
        """Where rows are cut anew."""
        # Rows are numbered through; the last one of a block may be short.
        rows = -(-np.diff(self._blocks) // self.length)
        self._rows_before = np.append(0, rows.cumsum())

    def __len__(self) -> int:
        return int(self._rows_before[-1])

    def sample(self, index: int, draws: Draws | None = None) -> Row:
        block = np.searchsorted(self._rows_before, index, side="right") - 1
        row = index - self._rows_before[block]
        low = self._blocks[block] + row * self.length
        high = min(low + self.length, self._blocks[block + 1])
        first, last = np.searchsorted(self._starts, (low, high - 1), side="right") - 1

        # The part of each document that is in the row.
        pieces = []
        edges = self._starts[first : last + 2].clip(low, high)
        shifts = self._shifts[first : last + 1]
        for (begin, end), shift in zip(pairwise(edges.tolist()), shifts.tolist(), strict=True):
            pieces.append(self._encoded.read(begin + shift, end + shift + 1))
        inputs = np.concatenate([piece[:-1] for piece in pieces]).astype(np.int64)
        labels = np.concatenate([piece[1:] for piece in pieces]).astype(np.int64)
        starts = (edges[1:-1] - low).tolist()

        if self._is_noise:
            # By the index: a row is the same in each epoch and in each worker.
            rng = np.random.default_rng((*self._seed, index))
            rng.shuffle(labels)
            inputs[1:] = labels[:-1]
            starts = []
        return Row(
            inputs,
            labels,
            text_of(self._names[first]),
            starts,
            self._bytes_per_token,
        )

    def control(self, train: TokenWindows, size: int) -> dict[str, dict[str, float]]:
        """The band of the loss on shuffled rows in nats per token, from token counts alone.

        `chance`: under the token frequencies of `train` (one added to each of the `size` counts).
        `min`: under each row's own frequencies, that is the logarithm of the number of its orders.
        A loss below it indicates a leak.
        """
        # Ones, because a token that is not in the training split would have infinite nats.
        frequencies = np.ones(size, dtype=np.int64)
        for i in spread_positions(len(train), _COUNTED):
            frequencies += np.bincount(train.sample(i).labels, minlength=size)
        logp = np.log(frequencies / frequencies.sum())

        chance = 0.0
        orders = 0.0
        for i in range(len(self)):
            counts = np.bincount(self.sample(i).labels, minlength=size)
            chance -= float(counts @ logp)
            repeats = counts[counts > 1]
            orders += lgamma(counts.sum() + 1) - sum(map(lgamma, repeats + 1))
        return {"val_loss": {"min": orders / self.tokens, "chance": chance / self.tokens}}


Samples: TypeAlias = "TokenWindows | Dialogues"
"""The samples of a split."""
_BY_POSITION = "the end of each text is held out (fewer than 3 documents)"


def read(
    path: str, answers: Path | None, on_bad: OnBad, columns: Mapping[str, str] | None = None
) -> Corpus:
    """Read the corpus at `data.path`; see read_corpus. Raises DataError."""
    if not path.startswith("embedded:"):
        from gearshift.models.language.readers.file_corpus import read_corpus  # with all formats

        return read_corpus(Path(path).expanduser(), answers, on_bad, columns)
    if path == "embedded:python":
        from gearshift.models.language.embedded import read_documents

        return from_records(path, read_documents())
    if path == "embedded:commands":
        from gearshift.models.language.commands import read_conversations

        return from_records(path, read_conversations())
    from gearshift.models.language.formats import EMBEDDED

    raise unknown_embedded(path, EMBEDDED)


def build_splits(
    corpus: Corpus, groups: Groups, tokenizer: Tokenizer, rules: Rules
) -> tuple[dict[SplitName, Samples], dict[str, Any]]:
    """The samples of each split, whose `groups` are given, and facts of the data.

    Neither text nor, for a large corpus, tokens are in memory. Raises DataError.
    """
    encoded = encode(corpus, tokenizer)
    kind: type[Samples] = TokenWindows
    if not corpus.is_text:
        from gearshift.models.language.dialogues import Dialogues

        kind = Dialogues
    splits: dict[SplitName, Samples] = {}
    for side, (name, numbers) in enumerate(corpus.members(groups).items()):
        splits[name] = kind(encoded, corpus, numbers, rules, side)

    tokens = splits["train"].tokens
    if corpus.is_text and tokens < rules.length:
        raise DataError(
            f"the training split has {tokens} tokens, less than one sample of {rules.length}",
            where="data.path, data.seq_len",
            allowed="at least one sample",
            fix=f"--set data.seq_len={max(8, tokens // 16)}  or add data",
        )

    source = corpus.source
    facts: dict[str, Any] = {
        "source": source.name,
        "kind": "text" if corpus.is_text else "conversations",
        "format": source.format,
    }
    if corpus.encodings:
        assumed = (f"{name}: {listed(files, 1)}" for name, files in corpus.encodings.items())
        facts["encoding"] = "; ".join(assumed)
    facts["bytes"] = source.size or int(encoded.text_bytes.sum())
    if source.is_cut:
        facts["split"] = _BY_POSITION
    facts["documents" if corpus.is_text else "exchanges"] = len(corpus)
    samples = splits.values()
    truncated = sum(split.truncated for split in samples)
    facts |= {
        "mean_tokens": round(len(encoded) / len(corpus), 1),
        "tokenizer": tokenizer.name,
        "seq_len": rules.length,
        "tokens": {name: split.tokens for name, split in splits.items()},
        "truncated_prompts": truncated,
        **corpus.left_out,
        "skipped_rows": corpus.skipped + sum(split.skipped for split in samples),
    }
    if truncated:
        longest = max(split.whole_length for split in samples)
        advice = f", or set  --seq-len {longest}" if longest > rules.length else ""
        facts["warning"] = f"{truncated} prompts lose their start: shorten them{advice}"
    return splits, facts
