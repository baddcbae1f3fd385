"""The language family: text in, the next token out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn import Module

from models.base import (
    Batch,
    Context,
    DataError,
    Goal,
    Loss,
    Picture,
    Predictions,
    SplitName,
)
from models.common import attention_kernels
from models.common.split import save_split, split_groups
from models.language import hugging_face, pretrained
from models.language.config import SIZES, Data, Model, Size
from models.language.dataset import Dataset, Rules, members, read
from models.language.metric import LanguageMetric
from models.language.model import Shape, Transformer, flops_per_sample, matrix_elements
from models.language.preview import pictures, predict, show
from models.language.readers.corpus import Corpus
from models.language.rows import Dialogues, Row, Windows, collate
from models.language.tokens import bpe, external_tokenizer
from models.language.tokens.tokenizer import ByteTokenizer, Tokenizer

GROUPS = "files, documents or requests"


class LanguageTask:
    """See models/base.py: Task."""

    goal = Goal("val_loss", "min")
    units = "tokens"
    channels_last = False

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Reads the settings; touches no file. Raises DataError for sizes that cannot be."""
        self.context = context
        self.size = SIZES[model.size]
        self.smoothing = model.label_smoothing
        self.pretrained = None if model.pretrained is None else Path(model.pretrained).expanduser()
        # A setting is read only where it means something: what nobody read is told to the person.
        self.kv_heads = self.size.heads
        if self.pretrained is None:
            self.kv_heads = _divisor(model.kv_heads or self.size.heads, self.size.heads)
        self.tokenizer_word = model.tokenizer
        if self.tokenizer_word == "bpe" and self.pretrained is None:
            entries = model.vocabulary or max(512, self.size.vocabulary)
            self.size = replace(self.size, vocabulary=entries)
        self.path, self.on_bad, self.control = data.path, data.on_bad, data.control
        self.answers = None if self.path.startswith("embedded:") else data.answers
        self.fraction, self.length = data.fraction, data.seq_len
        attention_kernels.check_kernel(context.attention, context.device)
        self._local: Tokenizer | None = None
        self._dataset: Dataset | None = None
        self._shape: Shape | None = None

    @property
    def dataset(self) -> Dataset:
        """What setup read."""
        assert self._dataset is not None, "setup() comes first"
        return self._dataset

    def setup(self) -> None:
        """Read the data, split it, fit or load the tokenizer; the run folder keeps both.

        Reads and writes the disk: rank 0 first, then the others. Raises DataError.
        """
        length = self._row_length()
        corpus = read(self.path, self.answers, self.on_bad)
        share, seed = self.context.eval_share, self.context.seed
        groups, earlier = corpus.index.groups, self.context.earlier_splits
        splits = split_groups(groups, self.fraction, share, seed, GROUPS, earlier)
        if self.context.folder is not None:
            save_split(splits, self.context.folder, self.context.reset_data)
        chosen = members(corpus, splits)
        del splits  # a text for each group
        tokenizer = self._fit_tokenizer(corpus, chosen.numbers["train"])
        whole = self.pretrained is not None  # not every architecture takes a mask of documents
        rules = Rules(length, self.on_bad, self.control, seed, whole)
        self._dataset = Dataset(corpus, chosen, tokenizer, rules)

    def continue_from(self, first: LanguageTask) -> None:
        """See models/base.py: ContinualTask. Raises DataError."""
        if bool(self.dataset.text) != bool(first.dataset.text):
            kinds = ("conversations", "text")
            old, new = (kinds[bool(one.dataset.text)] for one in (first, self))
            raise DataError(
                f"the data is {new}, and the run learns {old}", where="data.path", allowed=old
            )

    def _fit_tokenizer(self, corpus: Corpus, train: np.ndarray) -> Tokenizer:
        if local := self._local_tokenizer():
            return local
        if self.tokenizer_word == "bytes":
            return ByteTokenizer()
        # The library holds about as much memory as the text is long.
        every = -(-corpus.source.size // bpe.TRAINED_ON) or 1
        return bpe.load_or_train(
            corpus.texts(train[::every]), self.size.vocabulary, self.context.folder
        )

    def _local_tokenizer(self) -> Tokenizer | None:
        """That of a local file or folder; None if the tokenizer is one of our own."""
        is_ours = self.tokenizer_word in ("bytes", "bpe")
        if self._local is None and not (is_ours and self.pretrained is None):
            path = self.pretrained if is_ours else Path(self.tokenizer_word).expanduser()
            assert path is not None
            self._local = external_tokenizer.load(path)
        return self._local

    def _row_length(self) -> int:
        if self.pretrained is None:
            return self.length or self.size.context
        limit = getattr(pretrained.read_config(self.pretrained), "max_position_embeddings", None)
        if limit is not None and self.length is not None and self.length > limit:
            raise DataError(
                f"data.seq_len {self.length} is longer than model.pretrained can read",
                where=str(self.pretrained / "config.json"),
                allowed=f"at most {limit}",
                fix=f"--set data.seq_len={limit}",
            )
        return self.length or min(self.size.context, limit or self.size.context)

    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator, or loaded."""
        kernel = self.context.attention
        if self.pretrained is not None:
            model = pretrained.load(self.pretrained, self.smoothing, kernel)
            local = self._local_tokenizer()
            assert local is not None
            pretrained.check_vocabulary(model, local.size, self.pretrained)
            self._shape = pretrained.shape(model)
            return model
        size = self._fitting_size()
        ours = Transformer(size, self.kv_heads, self.smoothing, kernel)
        self._shape = Shape(matrix_elements(ours), size.layers, size.width)
        return ours

    def data(self, split: SplitName) -> Windows | Dialogues:
        """The samples of a split."""
        return self.dataset.split(split)

    def collate(self, samples: Sequence[Row]) -> Batch:
        """See rows.collate; rows of text have one length, answers that of the longest."""
        length = self.dataset.rules.length if self.dataset.text else None
        return collate(samples, self.dataset.tokenizer.pad, length)

    def num_units(self, batch: Batch) -> int:
        """Labels in `batch`."""
        return batch["units"]

    def loss(self, model: Module, batch: Batch) -> Loss:
        """Cross-entropy in nats, summed over labels."""
        extra = {name: batch[name] for name in self._inputs}
        return Loss(model(batch["input_ids"], labels=batch["labels"], **extra), {})

    @property
    def _inputs(self) -> tuple[str, ...]:
        return ("documents",) if self.pretrained is None else ("attention_mask",)

    def metric(self) -> LanguageMetric:
        """See models/language/metric.py."""
        return LanguageMetric(
            self._inputs,
            answers=bool(self.dataset.dialogues),
            noise=bool(self.dataset.dialogues) and self.control == "noise",
        )

    def blocks(self, model: Module) -> list[Module]:
        """The decoder's layers."""
        return pretrained.decoder_layers(model, self._shape.layers if self._shape else None)

    def preview(self, model: Module) -> str | None:
        """How the model goes on from the start of the first validation text. Collective."""
        return show(model, self.dataset, self.context.device)

    def predictions(self, model: Module) -> Predictions:
        """See predictions.predict. Collective."""
        return predict(model, self.dataset, self.context.device)

    def flops_per_sample(self, model: Module) -> float | None:
        """See model.flops_per_sample; of the mean length where samples differ."""
        # Kept from build(): an engine may have cut the weights into shards since.
        if self._shape is None:
            return None
        return flops_per_sample(self._shape, self.dataset.mean_length)

    def facts(self) -> Mapping[str, Any]:
        """See Dataset.facts."""
        return self.dataset.facts()

    def pictures(self) -> Sequence[Picture]:
        """See preview.pictures."""
        return pictures(self.dataset)

    def write_hugging_face(self, folder: Path) -> None:
        """Configuration and tokenizer, ours or those of `model.pretrained`. Touches disk.

        Raises DataError.
        """
        tokenizer, length = self._known_tokenizer(), self._row_length()
        if self.pretrained is None:
            form = hugging_face.Form(self._fitting_size(), self.kv_heads, length)
            hugging_face.write_ours(folder, form, tokenizer)
        else:
            hugging_face.carry_along(self.pretrained, folder)
        hugging_face.write_tokenizer(folder, tokenizer, length)

    def hugging_face_name(self, name: str) -> str:
        """Ours are theirs; those of a model that transformers loaded stand below `inner`."""
        return name.removeprefix("inner.")

    def _known_tokenizer(self) -> Tokenizer:
        """The tokenizer where no data need be read for it."""
        if local := self._local_tokenizer():
            return local
        if self.tokenizer_word == "bytes":
            return ByteTokenizer()
        return bpe.load_kept(self.context.folder)

    def _fitting_size(self) -> Size:
        """The size, with a vocabulary for a tokenizer that came from elsewhere."""
        if local := self._local_tokenizer():
            return replace(self.size, vocabulary=-(-local.size // 8) * 8)
        return self.size


def _divisor(kv_heads: int, heads: int) -> int:
    if heads % kv_heads:
        raise DataError(
            f"model.kv_heads {kv_heads} does not divide the {heads} heads of this size",
            where="model.kv_heads",
            allowed=", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0),
        )
    return kv_heads
