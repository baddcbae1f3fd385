"""Prompts: those in a file, and the tokens that a text is generated after."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.base import DataError, Message, Prompt
from models.common.data_files import BadRecords, OnBad
from models.language.readers.columns import RowReader, columns_in
from models.language.readers.records import Conversation, Turn
from models.language.readers.text_file import TextFile, file_kind
from models.language.tokens.tokenizer import Tokenizer, prompt_and_answer

JSON = ".json"
ALLOWED = "a text, which is one prompt, or JSONL, a JSON array or CSV with a prompt in each row"
_ANSWER = "(answer)"
"""A column that completes a row without an answer."""


def read_prompts(path: Path, declared: Mapping[str, str], on_bad: OnBad) -> list[Prompt]:
    """The prompts in a file: one for each row of JSONL, JSON and CSV, or one of a text.

    Answers of rows are left out. `declared`: see columns_in. Reads the disk. Raises DataError.
    """
    if not path.is_file():
        raise DataError(
            f"--input '{path}' is not a file",
            where=str(path.absolute()),
            allowed=ALLOWED,
        )
    if file_kind(path) == "text" and path.suffix.lower() != JSON:
        text = "\n".join(TextFile(path).lines()).removesuffix("\n")
        prompts = [text_prompt(text, _stem(path))] if text else []
    else:
        bad_records = BadRecords()
        rows = _Prompts(path, declared, bad_records)
        prompts = [
            prompt for line, row in _rows(path, bad_records) for prompt in rows.of(row, line)
        ]
        bad_records.finish(on_bad, len(prompts))
    if not prompts:
        raise DataError(f"--input '{path}' has no prompt", allowed=ALLOWED)
    return prompts


def text_prompt(text: str, name: str = "prompt") -> Prompt:
    """The prompt of one text: the start of a text, or a request."""
    return Prompt(name, (Message("user", text),))


def _stem(path: Path) -> str:
    return re.sub(r"[^\w.-]+", "-", path.stem)


def _rows(path: Path, bad_records: BadRecords) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a file, each with its line, or its number in a JSON array. Raises DataError."""
    lines, kind = TextFile(path).lines(), file_kind(path)
    if path.suffix.lower() == JSON:
        yield from _array(path, "\n".join(lines))
        return
    if kind not in ("CSV", "JSONL"):
        raise DataError(f"prompts are not read from {kind}: '{path}'", allowed=ALLOWED)
    if kind == "CSV":
        reader = csv.DictReader(f"{line}\n" for line in lines)
        for row in reader:
            if None in row or None in row.values():
                bad_records.add(f"{path.name}:{reader.line_num}", "another number of columns")
            else:
                yield reader.line_num, {name.strip(): value for name, value in row.items()}
        return
    for line, raw in enumerate(lines, start=1):
        try:
            row = json.loads(raw) if raw.strip() else {}
        except (ValueError, RecursionError) as error:
            bad_records.add(f"{path.name}:{line}", f"not JSON: {error}")
            continue
        if not isinstance(row, dict):
            bad_records.add(f"{path.name}:{line}", f"{type(row).__name__}, not an object")
        elif row:
            yield line, row


def _array(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        rows = json.loads(text)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("it is no array of objects")
    except (ValueError, RecursionError) as error:
        raise DataError(f"--input '{path}' has no rows: {error}", allowed=ALLOWED) from None
    yield from enumerate(rows, start=1)


class _Prompts:
    """Makes the prompts of the rows of one file."""

    def __init__(self, path: Path, declared: Mapping[str, str], bad_records: BadRecords) -> None:
        self._file, self._stem = path.name, _stem(path)
        self._declared, self._bad_records = declared, bad_records
        self._reader = RowReader(path.name, {**declared, _ANSWER: "answer"}, bad_records)

    def of(self, row: Mapping[str, Any], line: int) -> Iterator[Prompt]:
        """The prompt of a row; none, and a bad record, if it is invalid. Raises DataError."""
        name = f"{self._stem}-{line}"
        columns, _ = columns_in(tuple(row), self._declared)
        if columns.text and isinstance(row[columns.text], str):
            yield text_prompt(row[columns.text], name)
            return
        if not columns.messages and not columns.request:
            names = ", ".join(row)
            self._bad_records.add(f"{self._file}:{line}", f"no column for a prompt among: {names}")
            return
        if not columns.messages:
            row = {key: value for key, value in row.items() if key != columns.answer}
            row[_ANSWER] = "-"
        for record in self._reader.records(row, line):
            assert isinstance(record, Conversation)
            yield Prompt(
                name, tuple(Message(t.role, t.text) for t in _without_answer(record.turns))
            )


def _without_answer(turns: Sequence[Turn]) -> Sequence[Turn]:
    """Turns up to the last request."""
    requests = [number for number, turn in enumerate(turns) if turn.role != "assistant"]
    return turns[: max(requests, default=-1) + 1]


def tokens(prompt: Prompt, tokenizer: Tokenizer, *, is_request: bool) -> list[int]:
    """The tokens of a prompt as in training: of a request, up to the answer; or of a text."""
    if is_request:
        turns = [Turn(message.role, message.text) for message in prompt.messages]
        return prompt_and_answer(turns, "-", tokenizer)[0].tolist()
    text = "\n".join(message.text for message in prompt.messages)
    start = tokenizer.end if tokenizer.start is None else tokenizer.start
    return [start, *tokenizer.encode(text).tolist()]
