"""All that a run learns from: documents or exchanges, read, checked and freed of duplicates."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.base import DataError
from models.common.faults import Faults, OnBad
from models.language.readers import files, plain_text, suffixes
from models.language.readers.json_lines import read_json_lines
from models.language.readers.pairs import read_csv, read_parallel
from models.language.records import Conversation, Document, Exchange


@dataclass(frozen=True)
class Corpus:
    """Either documents or exchanges, and what was left out on the way."""

    source: str
    documents: Sequence[Document] = ()
    exchanges: Sequence[Exchange] = ()
    left_out: Counter[str] = field(default_factory=Counter)
    """Counts: skipped rows, duplicates, ignored files."""

    @property
    def groups(self) -> list[str]:
        """The group of each document or exchange."""
        return [record.group for record in self.documents or self.exchanges]


def read_corpus(path: Path, answers: Path | None, on_bad: OnBad) -> Corpus:
    """What the files under `path` hold; with `answers`, line N of it answers line N of `path`.

    Raises DataError.
    """
    chosen, ignored = files.find(path)
    faults = Faults()
    documents: list[Document] = []
    conversations: list[Conversation] = []
    if answers is not None:
        conversations = read_parallel(path, answers, faults)
        chosen = []
    for file in chosen:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            more = _read_file(file, name, path.is_dir(), faults)
        except DataError as error:
            if on_bad == "stop" or len(chosen) == 1:
                raise
            faults.add(name, error.what)
            continue
        documents += more[0]
        conversations += more[1]
    conversations = [c for c in conversations if _is_answered(c, faults)]
    skipped = faults.settle(on_bad, len(documents) + len(conversations))
    _check_kind(path, len(documents), len(conversations), skipped)
    left_out = Counter({"skipped_rows": skipped, "ignored_files": ignored})
    return assemble(str(path), documents, conversations, left_out)


def _is_answered(conversation: Conversation, faults: Faults) -> bool:
    answered = bool(exchanges_in(conversation))
    if not answered:
        faults.add(conversation.where, "no request with an answer")
    return answered


def _check_kind(path: Path, documents: int, conversations: int, skipped: int) -> None:
    if documents and conversations:
        raise DataError(
            f"'{path}' holds both plain text ({documents} documents) and conversations "
            f"({conversations})",
            where="data.path",
            legal="one kind at a time",
            mend="move one kind to a folder of its own",
        )
    if not documents and not conversations:
        raise DataError(
            f"'{path}' holds nothing to learn from",
            where=f"data.path, {skipped} rows left out",
            legal="text, or requests with answers",
        )


def _read_file(
    file: Path, name: str, in_folder: bool, faults: Faults
) -> tuple[list[Document], list[Conversation]]:
    text = files.read_text(file)
    suffix = file.suffix.lower()
    if suffix in suffixes.JSONL:
        return read_json_lines(text, name, faults)
    if suffix in suffixes.CSV:
        return [], read_csv(text, name, faults)
    if plain_text.is_dialogue(text):
        return [], plain_text.read_conversations(text, name, faults)
    if in_folder:
        return [Document(name, text)], []
    return plain_text.read_documents(text, name), []


def assemble(
    source: str,
    documents: Sequence[Document],
    conversations: Sequence[Conversation],
    left_out: Counter[str],
) -> Corpus:
    """A corpus without duplicates: of equal texts, or equal requests, the first one stays."""
    exchanges = [e for c in conversations for e in exchanges_in(c)]
    texts = _distinct([normalised(d.text) for d in documents])
    requests = _distinct([_request(e) for e in exchanges])
    dropped = len(documents) + len(exchanges) - len(texts) - len(requests)
    left_out = left_out + Counter(duplicates=dropped)
    return Corpus(source, [documents[i] for i in texts], [exchanges[i] for i in requests], left_out)


def exchanges_in(conversation: Conversation) -> list[Exchange]:
    """One exchange for each answer, with all turns before it."""
    turns = conversation.turns
    opening = normalised(next((t.text for t in turns if t.role == "user"), ""))
    group = conversation.group or hashlib.sha256(opening.encode()).hexdigest()[:16]
    label = conversation.label or opening
    return [
        Exchange(turns[:i], turn.text.strip(), group, label, conversation.where)
        for i, turn in enumerate(turns)
        if turn.role == "assistant" and i > 0 and turn.text.strip()
    ]


def normalised(text: str) -> str:
    """`text` without case, and with single blanks: what counts as the same request."""
    return " ".join(text.lower().split())


def _request(exchange: Exchange) -> str:
    return "\n".join(f"{turn.role} {normalised(turn.text)}" for turn in exchange.before)


def _distinct(keys: Sequence[str]) -> list[int]:
    """The position of each key's first occurrence."""
    first: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(hashlib.sha256(key.encode()).digest(), i)
    return list(first.values())
