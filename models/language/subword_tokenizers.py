"""Tokenizers of libraries: BPE of tokenizers, trained or from a file, and those of transformers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from importlib.metadata import version
from itertools import compress
from os.path import commonprefix
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import tokenizers

from gearshift.models.base import DataError, Message
from gearshift.models.catalog import name_of
from gearshift.models.common import initial_weights, subwords, trial
from gearshift.models.common.hugging_face import TOKENIZER_CONFIG, read_tokenizer
from gearshift.models.common.subwords import TOKENIZER_FILE
from gearshift.models.language.byte_pairs import BytePairs, byte_pairs
from gearshift.models.language.readers.records import Record
from gearshift.models.language.tokenizer import (
    ANSWER,
    FORMS,
    RESERVED,
    TAGS,
    Cuts,
    Exchange,
    Parts,
    Tokenizer,
)

TRAINED_ON = 64 * 2**20
"""Bytes of training text; of longer data, documents at even distances are used."""
PAD = "<|pad|>"
START = "<|start|>"
END = "<|end|>"
SPECIALS = (PAD, START, END, *TAGS, *(f"<|reserved_{i}|>" for i in range(RESERVED)))
_ENDS = (END, "<|endoftext|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_STARTS = (START, "<s>", "<bos>", "<|begin_of_text|>", "[CLS]")
_LARGEST = 64 * 2**20
"""Maximum bytes of a tokenizer file; larger files hold weights."""
_PARENTS = 3
"""A file of weights lies in RUN/checkpoints/STEP/."""


class BpeTokenizer(Tokenizer):
    """A tokenizer of the tokenizers library; special tokens written in a text are plain text."""

    def __init__(self, inner: tokenizers.Tokenizer, name: str = "bpe") -> None:
        """Raises DataError if `inner` has no end-of-text token."""
        self.inner = inner
        self.name = name
        # Otherwise "<|end|>" inside a text would end it.
        inner.encode_special_tokens = True
        inner.no_padding()
        inner.no_truncation()
        known = inner.get_vocab()
        # The highest id, because a file may skip ids.
        self.size = max(known.values()) + 1
        starts = [known[start] for start in _STARTS if start in known]
        ends = [known[end] for end in _ENDS if end in known]
        if not ends:
            raise _no_end(name, "model.tokenizer", ", ".join(_ENDS))
        self.start = starts[0] if starts else None
        self.end = ends[0]
        self.pad = known.get(PAD, self.end)

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        return hashlib.sha256(self.inner.to_str().encode()).hexdigest()

    @cached_property
    def _byte_pairs(self) -> BytePairs | None:
        return byte_pairs(self.inner)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        with subwords.encode_errors(f"model.tokenizer {self.name}"):
            # For one text it is not worth the time that tiktoken takes to start.
            if len(texts) > 1 and self._byte_pairs is not None:
                return [np.array(self._byte_pairs.encode(text), self.dtype) for text in texts]
            encodings = self.inner.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]

    def encode_parts(self, texts: Sequence[str], cuts: Cuts) -> Parts:
        with subwords.encode_errors(f"model.tokenizer {self.name}"):
            encodings = self.inner.encode_batch(list(texts), add_special_tokens=False)
        return _parts(encodings, cuts, self.dtype)

    def decode(self, tokens: Sequence[int]) -> str:
        hidden = {self.pad, self.start, self.end}
        visible = [token for token in map(int, tokens) if token not in hidden]
        return self.inner.decode(visible, skip_special_tokens=False)


class ExternalTokenizer(Tokenizer):
    """Tokenizer of a local Hugging Face folder; no download, no code of the folder is run.

    Special tokens written in a text count as such.
    """

    def __init__(self, folder: Path) -> None:
        """Disk access; raises DataError if the folder has no usable tokenizer."""
        inner: Any = read_tokenizer(folder)
        self._config = str(folder / TOKENIZER_CONFIG)
        if inner.eos_token_id is None:
            raise _no_end(str(folder), self._config, "an eos_token")
        self.inner = inner
        self._backend: tokenizers.Tokenizer | None = None
        """What tokenizes for `inner`; None: Python does."""
        if inner.is_fast:
            self._backend = inner.backend_tokenizer
            self._backend.no_padding()
            self._backend.no_truncation()
        self.name = name_of(folder)
        self.folder = folder
        self.size = len(inner)
        self.start: int | None = inner.bos_token_id
        self.end: int = inner.eos_token_id
        self.pad: int = self.end if inner.pad_token_id is None else inner.pad_token_id
        self.form = None if inner.chat_template else chat_template(self)
        """The chat template of a tokenizer that has none; None: it has one."""

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        digest = hashlib.sha256(version("transformers").encode())
        for file in sorted(self.folder.iterdir()):
            if file.is_file() and file.stat().st_size < _LARGEST:
                digest.update(f"{file.name}\0".encode() + file.read_bytes())
        return digest.hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self._backend is None:
            return [np.array(numbers, self.dtype) for numbers in self._encoded(texts)["input_ids"]]
        with subwords.encode_errors(str(self.folder)):
            # Without the place of each token in the text, which takes a third of the time.
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]

    def _encoded(self, texts: Sequence[str]) -> Any:
        with subwords.encode_errors(str(self.folder)):
            return self.inner(list(texts), add_special_tokens=False, verbose=False)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.inner.decode(list(map(int, tokens)), skip_special_tokens=True)

    @cached_property
    def _closing(self) -> int | None:
        """The token that the chat template writes after an answer; None: none."""
        answer = "It is so."
        try:
            text = self._render((Message("user", "Is it so?"), Message("assistant", answer)))
        except DataError:  # a template that needs other turns
            return None
        if answer not in text:
            return None
        special = {self.end, *self.inner.added_tokens_decoder}
        after = self.encode(text.rpartition(answer)[2]).tolist()
        return next(filter(special.__contains__, after), None)

    @property
    def stops(self) -> tuple[int, ...]:
        if self._closing in (None, self.end):
            return (self.end,)
        return self.end, self._closing

    def encode_parts(self, texts: Sequence[str], cuts: Cuts) -> Parts:
        encodings = self._encoded(texts).encodings
        if encodings is None:
            raise DataError(
                "the tokenizer does not tell which letters a token is of",
                where=str(self.folder),
                allowed=f"for conversations, a tokenizer with a {TOKENIZER_FILE}",
            )
        return _parts(encodings, cuts, self.dtype)

    def encode_chats(self, chats: Sequence[Sequence[Record]]) -> Iterator[Exchange]:
        """As Tokenizer.encode_chats, with the tokens of apply_chat_template.

        A conversation whose template changes earlier turns is a row for each answer.
        """
        texts = []
        cuts = []
        for records in chats:
            try:
                rows = self._rows(records)
            except DataError as error:
                error.where += f" ({records[0].where})"
                raise
            for text, edges in rows:
                texts.append(text)
                cuts.append(edges)
        for parts in self.encode_parts(texts, cuts):
            for i in range(0, len(parts) - 1, 2):
                answer = parts[i + 1]
                if self._closing is None:
                    answer = np.append(answer, self.end)
                yield Exchange(i == 0, parts[i], answer)

    def _rows(self, records: Sequence[Record]) -> list[tuple[str, list[int]]]:
        """The text of each row of a conversation, and where its answers begin and end."""
        rows = []
        edges = []
        for record in records:
            text = self._render(record.conversation)
            answer = self._answer(record, text)
            rows.append((text, answer))
            edges += answer
        # Without a token after each answer, only the end of a row can teach to stop.
        if self._closing is None:
            return rows
        keeps_turns = all(text.startswith(part[:end]) for part, (_, end) in rows)
        if keeps_turns:
            return [(text, edges)]
        return rows

    def _answer(self, record: Record, text: str) -> list[int]:
        """Where the answer of `record` begins and ends in `text`, its conversation as rendered."""
        prompt = self._render(record.before, add_generation_prompt=True)
        begin = len(prompt)
        if not text.startswith(prompt):
            # Such as a prompt that opens <think>: take what is before any answer.
            other = self._render((*record.before, Message("assistant", "\ue000")))
            begin = len(commonprefix([text, other]))  # noqa: RUF071
        # Line ends after the last turn belong to no answer.
        end = max(begin, len(text.rstrip()))
        if _MARKS.search(self.inner.get_chat_template(self.form)):
            tokens = self._render(
                record.conversation,
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
                tokenizer_kwargs={"return_offsets_mapping": True},
            )
            offsets = compress(tokens["offset_mapping"], tokens["assistant_masks"])
            marked = [offset for offset in offsets if offset[1] > begin]
            if marked:
                begin = marked[0][0]
                end = max(end, marked[-1][1])
        return [begin, end]

    def prompt(self, turns: Sequence[Message]) -> np.ndarray:
        return self.encode(self._render(turns, add_generation_prompt=True))

    def _render(self, turns: Sequence[Message], tokenize: bool = False, **options: Any) -> Any:
        """The text of a conversation, or what `options` ask for. Raises DataError."""
        if self.form is None:
            _try_template(self.inner.get_chat_template(), self._config)
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            return self.inner.apply_chat_template(
                messages,
                chat_template=self.form,
                tokenize=tokenize,
                **options,
            )
        except Exception as error:  # TemplateError, TypeError and others: a template is a program
            roles = ", ".join(turn.role for turn in turns)
            raise DataError(
                f"the chat template fails: {error or type(error).__name__}",
                where=f"{self._config}, for a conversation of {roles}",
                allowed="a template that renders the conversations of data.path",
            ) from None


_TRY = """
from transformers.utils.chat_template_utils import _compile_jinja_template
try:
    template = _compile_jinja_template(sys.stdin.read())
    chat = [dict(role=role, content="Is it so?") for role in ("user", "assistant")]
    template.render(messages=chat, add_generation_prompt=False, bos_token="", eos_token="")
except MemoryError:
    sys.exit(3)
except Exception:
    pass  # a template may need other turns
"""
_TOO_LARGE = 3
_TEMPLATE_S = 10
_TEMPLATE_BYTES = 2**29


@cache
def _try_template(template: str, where: str) -> None:
    """Render a short chat in another process: a template may loop for hours, or fill the memory.

    Raises DataError.
    """
    end = trial.run(_TRY, template, _TEMPLATE_BYTES, _TEMPLATE_S).returncode
    if end < 0 or end == _TOO_LARGE:
        raise DataError(
            f"the chat template takes more than {_TEMPLATE_S} s or {_TEMPLATE_BYTES >> 20} MiB "
            "for two short turns",
            where=where,
            allowed="a template that renders the conversations of data.path",
        )


_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""What a chat template writes around answers; see return_assistant_tokens_mask of transformers."""


def _parts(encodings: Sequence[tokenizers.Encoding], cuts: Cuts, dtype: type) -> Parts:
    """As Tokenizer.encode_parts, from the tokens of each text and the letters they are of."""
    parts: Parts = []
    for encoding, edges in zip(encodings, cuts, strict=True):
        begins, ends = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2).T
        at = np.empty(len(edges), dtype=np.int64)
        at[::2] = np.searchsorted(ends, edges[::2], side="right")
        at[1::2] = np.searchsorted(begins, edges[1::2], side="left")
        parts.append(np.split(np.array(encoding.ids, dtype), at))
    return parts


def _no_end(name: str, where: str, allowed: str) -> DataError:
    return DataError(
        f"the tokenizer '{name}' has no end-of-text token",
        where=where,
        allowed=allowed,
    )


def train(texts: Iterable[str], size: int) -> BpeTokenizer:
    """Train a tokenizer of at most `size` entries; see subwords.train_byte_bpe."""
    inner = subwords.train_byte_bpe(texts, size, SPECIALS)
    state = json.loads(inner.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in TAGS
    return BpeTokenizer(tokenizers.Tokenizer.from_str(json.dumps(state)))


def load(path: Path) -> Tokenizer:
    """Load the tokenizer of a Hugging Face folder or tokenizer.json. Raises DataError."""
    if path.is_dir():
        return ExternalTokenizer(path)
    return BpeTokenizer(subwords.load_tokenizer(path), path.stem)


def of_start(start: Path) -> BpeTokenizer:
    """The tokenizer of what model.start names, or of the run folder around it. Raises DataError."""
    for folder in (start, *start.absolute().parents[:_PARENTS]):
        path = folder / TOKENIZER_FILE
        # A tokenizer beside weights; one in a folder of other things belongs to something else.
        if path.is_file() and initial_weights.find(folder) is not None:
            return BpeTokenizer(subwords.load_tokenizer(path, str(path)))
    raise DataError(
        f"model.start '{start}' has no {TOKENIZER_FILE}, and model.tokenizer is bpe",
        where="model.start, model.tokenizer",
        allowed=f"a run folder or an export with its {TOKENIZER_FILE}, since weights belong to one",
        hint="--set model.tokenizer=PATH  the tokenizer.json of these weights",
    )


_CHAT = Template(
    "$start{% set forms = $forms %}"
    "{% for message in messages %}{% set text = message['content'] | trim %}"
    "{% if message['role'] == 'assistant' %}{{ $answer + ' ' + text + eos_token }}"
    "{% if add_generation_prompt or not loop.last %}{{ '\\n' }}{% endif %}"
    "{% elif message['role'] in forms %}{{ forms[message['role']] | replace('{}', text) }}"
    "{% else %}{{ raise_exception('unknown role ' + message['role']) }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ $answer + '$space' }}{% endif %}"
)


def chat_template(tokenizer: Tokenizer) -> str:
    """The text form of conversations as a chat template of transformers."""
    start = "" if tokenizer.start is None else "{{ bos_token }}"
    space = " " * (not tokenizer.leading_space)
    return _CHAT.substitute(
        start=start,
        space=space,
        forms=json.dumps(FORMS),
        answer=json.dumps(ANSWER),
    )
