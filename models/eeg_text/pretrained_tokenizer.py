"""The tokenizer of a pretrained text decoder, as transformers loads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from models.base import DataError
from models.common.hugging_face import quiet, read_tokenizer
from models.common.split import write_if_changed
from models.common.subwords import encode_errors
from models.eeg_text.pretrained_decoder import TextModel
from models.eeg_text.texts import truncate_at

FOLDER = "tokenizer"
"""Its name in the run folder."""
_HIDDEN = ("<mask>", "<unk>", "<extra_id_0>")
"""The names that the token of a hidden word has, if the settings of a tokenizer do not say."""


class PretrainedTokenizer:
    """Encodes sentences as transformers trains the decoder to write them."""

    name = "pretrained"

    def __init__(self, folder: Path, model: TextModel) -> None:
        """Reads the disk; raises DataError."""
        self.folder, self._model = folder, model
        self.inner = read_tokenizer(folder)
        self._choose_language()
        self.size = max(self.inner.get_vocab().values()) + 1
        self.end = self._need("eos_token_id", "sep_token_id")
        pad = self._special("pad_token_id")
        self.pad = self.end if pad is None else pad
        self.hidden = self._hidden()
        self._before, self.suffix = self._frame()
        self.start = self._start()

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`, with those that the model writes before it."""
        tokens = (t for t in self._plain(text) if t not in (self.pad, self.end))
        return [*self._before, *tokens]

    def decode(self, tokens: Sequence[int]) -> str:
        # The decoder may have more embeddings than the tokenizer has tokens.
        known = [t for t in truncate_at(tokens, self.end) if t < self.size]
        return str(self.inner.decode(known, skip_special_tokens=True)).strip()

    def save(self, folder: Path | None) -> None:
        """Write it into the run folder, unless it holds the same; None: write nothing."""
        if folder is None:
            return
        with TemporaryDirectory() as temporary, quiet():
            self.inner.save_pretrained(temporary)
            for file in Path(temporary).rglob("*"):
                if file.is_file():
                    target = folder / FOLDER / file.relative_to(temporary)
                    write_if_changed(target, file.read_bytes())

    def _plain(self, text: str) -> list[int]:
        # Otherwise a text that contains </s> would end there.
        with encode_errors("model.pretrained"):
            encoding = self.inner(
                text_target=text, add_special_tokens=False, split_special_tokens=True
            )
        return list(encoding.input_ids)

    def _frame(self) -> tuple[list[int], tuple[int, ...]]:
        """The tokens before and after each sentence; the latter include the end token."""
        plain = self._plain("a")
        whole = list(self.inner(text_target="a").input_ids)
        places = range(len(whole) - len(plain) + 1)
        at = next((n for n in places if whole[n : n + len(plain)] == plain), None)
        before, after = ([], []) if at is None else (whole[:at], whole[at + len(plain) :])
        return before, tuple(after) if self.end in after else (self.end,)

    def _choose_language(self) -> None:
        """The stored language of sentences, or that the model generates, or that of its input."""
        inner, forced = self.inner, self._of_config("forced_bos_token_id")
        if hasattr(inner, "src_lang") and getattr(inner, "tgt_lang", None) is None:
            named = None if forced is None else inner.convert_ids_to_tokens(forced)
            inner.tgt_lang = inner.src_lang if named is None else named

    def _start(self) -> int:
        """The first input of the decoder. Without a setting, the language after a sentence."""
        token = self._of_config("decoder_start_token_id")
        if token is None and self.suffix[-1] != self.end:
            token = self.suffix[-1]
        return self._need("bos_token_id") if token is None else token

    def _hidden(self) -> int:
        vocabulary = self.inner.get_vocab()
        candidates = [self.inner.mask_token_id, self.inner.unk_token_id]
        candidates += [vocabulary.get(name) for name in _HIDDEN]
        return int(next((token for token in candidates if token is not None), self.pad))

    def _of_config(self, name: str) -> int | None:
        config = self._model.parsed()
        candidates = [self._model.config.get(name)]  # newer versions of transformers drop some keys
        candidates += [
            getattr(part, name, None) for part in (config, config.get_text_config(decoder=True))
        ]
        first = next((token for token in candidates if token is not None), None)
        return first[0] if isinstance(first, list) else first

    def _special(self, *names: str) -> int | None:
        """The first that is set: of the model, then of the tokenizer."""
        candidates = [self._of_config(name) for name in names]
        candidates += [getattr(self.inner, name, None) for name in names]
        return next((token for token in candidates if token is not None), None)

    def _need(self, *names: str) -> int:
        token = self._special(*names)
        if token is None:
            names = ("decoder_start_token_id",) if names == ("bos_token_id",) else names
            raise DataError(
                f"the model in '{self.folder}' has no {names[0]}",
                where=str((self.folder / "config.json").absolute()),
                allowed="the number of a token",
                fix=f'add  "{names[0]}": NUMBER  to config.json',
            )
        return token
