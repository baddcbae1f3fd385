"""The data of a run: its corpus, the samples of each split, and facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gearshift.models.base import DataError, Groups, SplitName
from gearshift.models.common.data_files import OnBad, listed, unknown_embedded
from gearshift.models.language.encoded import encode
from gearshift.models.language.readers.corpus import Corpus, from_records, read_corpus
from gearshift.models.language.rows import Dialogues, Rules, Samples, TokenWindows
from gearshift.models.language.tokenizer import Tokenizer

_BY_POSITION = "the end of each text is held out (fewer than 3 documents)"


def read(
    path: str, answers: Path | None, on_bad: OnBad, columns: Mapping[str, str] | None = None
) -> Corpus:
    """Read the corpus at `data.path`; see read_corpus. Raises DataError."""
    if not path.startswith("embedded:"):
        return read_corpus(Path(path).expanduser(), answers, on_bad, columns)
    from gearshift.models.language import embedded

    if path not in embedded.READERS:
        raise unknown_embedded(path, embedded.READERS)
    return from_records(path, embedded.READERS[path]())


def build_splits(
    corpus: Corpus, groups: Groups, tokenizer: Tokenizer, rules: Rules
) -> tuple[Mapping[SplitName, Samples], dict[str, Any]]:
    """The samples of each split, whose `groups` are given, and facts of the data. Raises DataError.

    Neither text nor, for a large corpus, tokens are in memory.
    """
    encoded = encode(corpus, tokenizer)
    kind = TokenWindows if corpus.is_text else Dialogues
    members = enumerate(corpus.members(groups).items())
    splits = {
        name: kind(encoded, corpus, numbers, rules, side) for side, (name, numbers) in members
    }
    tokens = splits["train"].tokens
    if corpus.is_text and tokens < rules.length:
        raise DataError(
            f"the training split has {tokens} tokens, less than one sample of {rules.length}",
            where="data.path, data.seq_len",
            allowed="at least one sample",
            fix=f"--set data.seq_len={max(8, tokens // 16)}  or add data",
        )
    assumed = "; ".join(
        f"{encoding}: {listed(names, 1)}" for encoding, names in corpus.encodings.items()
    )
    truncated = sum(split.truncated for split in splits.values())
    facts = {
        "source": corpus.source.name,
        "kind": "text" if corpus.is_text else "conversations",
        "format": corpus.source.format,
        **({"encoding": assumed} if assumed else {}),
        "bytes": corpus.source.size or int(encoded.text_bytes.sum()),
        **({"split": _BY_POSITION} if corpus.source.is_cut else {}),
        ("documents" if corpus.is_text else "exchanges"): len(corpus),
        "mean_tokens": round(len(encoded) / len(corpus), 1),
        "tokenizer": tokenizer.name,
        "seq_len": rules.length,
        "tokens": {name: split.tokens for name, split in splits.items()},
        "truncated_prompts": truncated,
        **corpus.left_out,
        "skipped_rows": corpus.skipped + sum(split.skipped for split in splits.values()),
    }
    if truncated:
        most = max(split.whole_length for split in splits.values())
        advice = f", or set  --seq-len {most}" if most > rules.length else ""
        facts["warning"] = f"{truncated} prompts lose their start: shorten them{advice}"
    return splits, facts
