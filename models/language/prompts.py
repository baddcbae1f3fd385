"""Prompts: those in a file, and the tokens that a text is generated after."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from models.base import DataError, Message, Prompt
from models.common.data_files import BadRecords, OnBad
from models.common.predict_input import input_errors
from models.common.text_file import TextFile
from models.language.readers.columns import RawRow, RowReader, columns_in
from models.language.readers.corpus import rows_of
from models.language.readers.records import Conversation, Turn
from models.language.tokens.tokenizer import Tokenizer, prompt_and_answer

JSON = ".json"
ALLOWED = "a text, which is one prompt, or a table or JSON with a prompt in each row"
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
    with input_errors():
        return _read(path, declared, on_bad)


def _read(path: Path, declared: Mapping[str, str], on_bad: OnBad) -> list[Prompt]:
    file, bad_records = TextFile(path), BadRecords()
    rows = rows_of(file, path.name, bad_records)
    if rows is None:
        text = "\n".join(file.lines()).removesuffix("\n")
        prompts = [text_prompt(text, _stem(path))] if text else []
    else:
        reader = _Prompts(path, declared, bad_records)
        prompts = [prompt for row in rows for prompt in reader.of(row)]
        bad_records.finish(on_bad, len(prompts))
    if not prompts:
        raise DataError(f"--input '{path}' has no prompt", allowed=ALLOWED)
    return prompts


def text_prompt(text: str, name: str = "prompt") -> Prompt:
    """The prompt of one text: the start of a text, or a request."""
    return Prompt(name, (Message("user", text),))


def _stem(path: Path) -> str:
    return re.sub(r"[^\w.-]+", "-", path.stem)


class _Prompts:
    """Makes the prompts of the rows of one file."""

    def __init__(self, path: Path, declared: Mapping[str, str], bad_records: BadRecords) -> None:
        self._file, self._stem = path.name, _stem(path)
        self._declared, self._bad_records = declared, bad_records
        self._reader = RowReader(path.name, {**declared, _ANSWER: "answer"}, bad_records)

    def of(self, raw: RawRow) -> Iterator[Prompt]:
        """The prompt of a row; none, and a bad record, if it is invalid. Raises DataError."""
        row, name = raw.fields, f"{self._stem}-{raw.number}"
        columns, _ = columns_in(tuple(row), self._declared)
        if columns.text and isinstance(row[columns.text], str):
            yield text_prompt(row[columns.text], name)
            return
        if not columns.messages and not columns.request:
            names = ", ".join(row)
            problem = f"no column for a prompt among: {names}"
            self._bad_records.add(f"{self._file}:{raw.line}", problem)
            return
        if not columns.messages:
            row = {key: value for key, value in row.items() if key != columns.answer}
            row[_ANSWER] = "-"
        for record in self._reader.records(replace(raw, fields=row)):
            assert isinstance(record, Conversation)
            turns = _without_answer(record.turns)
            messages = tuple(Message(turn.role, turn.text, turn.extra) for turn in turns)
            yield Prompt(name, messages, record.tools)


def _without_answer(turns: Sequence[Turn]) -> Sequence[Turn]:
    """Turns up to the last request."""
    requests = [number for number, turn in enumerate(turns) if turn.role != "assistant"]
    return turns[: max(requests, default=-1) + 1]


def tokens(prompt: Prompt, tokenizer: Tokenizer, *, is_request: bool) -> list[int]:
    """The tokens of a prompt as in training: of a request, up to the answer; or of a text."""
    if is_request:
        turns = [Turn(m.role, m.text, m.extra) for m in prompt.messages]
        answer = Turn("assistant", "-")
        return prompt_and_answer(turns, answer, tokenizer, prompt.tools)[0].tolist()
    text = "\n".join(message.text for message in prompt.messages)
    start = tokenizer.end if tokenizer.start is None else tokenizer.start
    return [start, *tokenizer.encode(text).tolist()]
