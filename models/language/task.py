"""Task of the language family: next-token prediction on text and conversations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Embedding, Module

from models.base import (
    LAYERS,
    Batch,
    Context,
    DataError,
    Goal,
    Loss,
    Predictions,
    Prompt,
    SamplePart,
    Sampling,
    SplitName,
)
from models.common import layers, model_facts
from models.common.hub import folder_of
from models.common.model_facts import FACTS_FILE
from models.common.split import SPLITS, SplitRule, save_split, split_groups
from models.language.config import SIZES, Data, Lora, Model, Size, context_of
from models.language.dataset import Dataset, Rules, assign_splits, read
from models.language.metric import LanguageMetric
from models.language.model import Transformer, decoder_layers
from models.language.preview import predict, preview_text, sample_text
from models.language.rows import Dialogues, Row, TokenWindows, collate
from models.language.tokenizer import ByteTokenizer, Tokenizer

if TYPE_CHECKING:
    import tokenizers

    from models.common.nf4 import Quantizer
    from models.language.generate import Prompting
    from models.language.pretrained import Pretrained

_START = "a run folder of  --set model.stage=lower , or a safetensors file of its model"


@dataclass(frozen=True)
class _TextFacts:
    """What a prediction needs to know of training."""

    conversations: bool
    """Whether a prompt is a request."""


class LanguageTask:
    """Next-token prediction; implements models.base.Task."""

    goal = Goal("val_loss", "min")
    units = "tokens"
    channels_last = False
    saved_files = ("tokenizer.json", FACTS_FILE)
    dataset: Dataset
    """What setup read."""
    prompting: Prompting
    """How a text is generated after a prompt, after setup_without_data."""

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Read the settings without disk access. Raises DataError for an invalid kv_heads."""
        self.context = context
        self.size = SIZES[model.size]
        self.smoothing = model.label_smoothing
        self.pretrained = None if model.pretrained is None else folder_of(model.pretrained)
        # Read a setting only where it applies: unused settings are reported.
        self.kv_heads = self.size.heads
        if self.pretrained is None:
            heads, self.kv_heads = self.size.heads, model.kv_heads or self.size.heads
            if heads % self.kv_heads:
                raise DataError(
                    f"model.kv_heads {self.kv_heads} does not divide the {heads} heads of the size",
                    where="model.kv_heads",
                    allowed=", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0),
                )
        self.lora = Lora() if self.pretrained is None else model.lora
        self.has_adapters = self.lora.rank is not None
        self.quantizer: Quantizer | None = None
        if self.has_adapters and model.quantize is not None:
            from models.common.nf4 import Quantizer

            self.quantizer = Quantizer(context.device)
        # A checkpoint of adapters lacks the frozen weights, which must therefore be in the folder.
        may_lack = self.pretrained is not None and not self.has_adapters
        self.allow_missing = model.allow_missing if may_lack else False
        self.tokenizer_name = model.tokenizer
        if self.tokenizer_name == "bpe" and self.pretrained is None:
            entries = model.vocabulary or max(512, self.size.vocabulary)
            self.size = replace(self.size, vocabulary=entries)
        self.start: Path | None = None
        self.frozen_layers = 0
        self.is_lower = model.stage == "lower" and not self.has_adapters
        if model.stage == "whole":
            self.start = None if model.start is None else Path(model.start).expanduser()
            self.frozen_layers = 0 if self.has_adapters else model.freeze_layers
        self.path, self.on_bad, self.control = data.path, data.on_bad, data.control
        is_embedded = self.path.startswith("embedded:")
        self.answers = None if is_embedded else data.answers
        self.columns = () if is_embedded else data.columns
        self.rule, self.length = SplitRule.of(data, context), data.seq_len
        layers.check_kernel(context.attention, context.device)
        self.loaded: str | None = None
        self.coverage = ""
        self._local: Tokenizer | None = None
        self._layers: int | None = None

    @property
    def prompt_suffixes(self) -> Collection[str]:
        """The endings of files with prompts."""
        from models.language.readers.plain_text import SUFFIXES

        return SUFFIXES

    def setup(self) -> None:
        """Read and split the data, train or load the tokenizer; store both in the run folder.

        Disk access: rank 0 first, then the other ranks. Raises DataError.
        """
        length = self._row_length()
        corpus = read(self.path, self.answers, self.on_bad, self.columns)
        noun = "documents" if corpus.is_text else "requests"
        splits = split_groups(corpus.groups, self.rule, noun)
        if self.context.folder is not None:
            save_split(splits, self.context.folder, self.context.reset_data, self.rule)
            model_facts.save(_TextFacts(not corpus.is_text), self.context.folder)
        members = assign_splits(corpus, splits)
        counts = {name: len(splits[name]) for name in SPLITS}
        del splits  # holds one string per group

        def texts(most: int) -> Iterator[str]:
            return corpus.texts(members["train"][:: -(-corpus.source.size // most) or 1])

        tokenizer = self._tokenizer(texts)
        # Not every pretrained architecture accepts a document mask.
        single_document = self.pretrained is not None
        seed, longest = self.rule.seed, self._longest()
        rules = Rules(length, self.on_bad, self.control, seed, single_document, longest)
        self.dataset = Dataset(corpus, members, counts, tokenizer, rules)

    def setup_without_data(self) -> None:
        facts = model_facts.load(self.context.folder, _TextFacts)
        window = self._row_length()
        if self.pretrained is not None:
            window = context_of(self.pretrained) or window
        from models.language.generate import Prompting

        tokenizer = self._tokenizer()
        self.prompting = Prompting(tokenizer, window, is_request=facts.conversations)
        self.start = None

    def continue_from(self, first: LanguageTask) -> None:
        """Check that the data is of the same kind as that of `first`. Raises DataError."""
        if bool(self.dataset.text) != bool(first.dataset.text):
            kinds = ("conversations", "text")
            old, new = (kinds[bool(task.dataset.text)] for task in (first, self))
            raise DataError(
                f"the new data is {new}, but the run trains on {old}", where="data.path", allowed=old
            )

    def _tokenizer(self, texts: Callable[[int], Iterable[str]] | None = None) -> Tokenizer:
        """The tokenizer of the settings; one of bpe of the run folder, or else trained.

        `texts` gives the training text, at most so many bytes of it. Disk access; raises DataError.
        """
        if local := self._local_tokenizer():
            return local
        if self.tokenizer_name == "bytes":
            return ByteTokenizer()
        from models.common.subwords import load_or_fit
        from models.language import subword_tokenizers as bpe

        def fit() -> tokenizers.Tokenizer:
            if texts is None:
                raise DataError(
                    "the tokenizer of the run does not exist",
                    where=str(self.context.folder or "a checkpoint without a run folder"),
                    allowed="a run folder with its tokenizer.json",
                )
            if self.start is not None:
                return bpe.of_start(self.start).inner
            # The library uses about as much memory as the text has bytes.
            return bpe.train(texts(bpe.TRAINED_ON), self.size.vocabulary).inner

        return bpe.BpeTokenizer(load_or_fit(self.context.folder, fit))

    def _local_tokenizer(self) -> Tokenizer | None:
        """Tokenizer of a local file or folder; None: a built-in tokenizer."""
        is_built_in = self.tokenizer_name in ("bytes", "bpe")
        if self._local is None and not (is_built_in and self.pretrained is None):
            path = self.pretrained if is_built_in else Path(self.tokenizer_name).expanduser()
            assert path is not None
            from models.language import subword_tokenizers

            self._local = subword_tokenizers.load(path)
        return self._local

    def _longest(self) -> int | None:
        """The longest sample that the model allows; None: any."""
        if self.pretrained is None:
            return None
        from models.language import pretrained

        return getattr(pretrained.read_config(self.pretrained), "max_position_embeddings", None)

    def _row_length(self) -> int:
        if self.pretrained is None:
            return self.length or self.size.context
        limit = self._longest()
        if limit is not None and self.length is not None and self.length > limit:
            raise DataError(
                f"data.seq_len {self.length} exceeds the positions of model.pretrained",
                where=str(self.pretrained / "config.json"),
                allowed=f"at most {limit}",
                fix=f"--set data.seq_len={limit}",
            )
        return self.length or min(self.size.context, limit or self.size.context)

    def build(self) -> Module:
        """Build the model on the CPU with random weights, or load it; then freeze layers.

        `model.start` overwrites the weights, of adapters only the adapters. Raises DataError.
        """
        model: Pretrained | Transformer
        if self.pretrained is not None:
            model = self._pretrained(self.pretrained)
        else:
            size = self._size_for_tokenizer()
            kernel = self.context.attention
            model = Transformer(size, self.kv_heads, self.smoothing, kernel)
            self._layers = size.layers
        if self.start is not None:
            adapters = [name for name, p in model.named_parameters() if p.requires_grad]
            names = ("",) if self.lora.rank is None else tuple(adapters)
            from models.common import initial_weights

            self.loaded = initial_weights.load("model.start", model, self.start, _START, names)
        if self.is_lower:
            blocks = self.blocks(model)
            model.freeze(*blocks[len(blocks) // 2 :])
        if self.frozen_layers:
            self._freeze(model)
        return model

    def _pretrained(self, folder: Path) -> Pretrained:
        from models.language import pretrained

        inner, coverage, unread = pretrained.open_inner(folder, self.allow_missing)
        self.coverage = coverage.render()
        model = pretrained.Pretrained(inner, self.smoothing)
        if self.lora.rank is not None:
            pretrained.add_adapters(model.inner, self.lora)
        local = self._local_tokenizer()
        assert local is not None
        pretrained.check_vocabulary(model, local.size, folder)
        self._layers = getattr(inner.config, "num_hidden_layers", None)
        layers.restrict_blocks(self.blocks(model), self.context.attention)
        pretrained.read_weights(model.inner, unread, folder, self.quantizer)
        return model

    def _freeze(self, model: Pretrained | Transformer) -> None:
        """Freeze the embedding and the first layers. Raises DataError if there are fewer."""
        layers, count = self.blocks(model), self.frozen_layers
        if count > len(layers):
            raise DataError(
                f"model.freeze_layers {count}: the model has {len(layers)} layers",
                where="model.freeze_layers",
                allowed=f"0 to {len(layers)}",
                fix=f"--set model.freeze_layers={len(layers) // 2}",
            )
        model.freeze(model.embedding, *layers[:count])

    def data(self, split: SplitName) -> TokenWindows | Dialogues:
        return self.dataset.split(split)

    def collate(self, samples: Sequence[Row]) -> Batch:
        length = self.dataset.rules.length if self.dataset.text else None
        return collate(samples, self.dataset.tokenizer.pad, length)

    def num_units(self, batch: Batch) -> int:
        return batch["units"]

    def loss(self, model: Module, batch: Batch) -> Loss:
        extra = {name: batch[name] for name in self._inputs}
        return Loss(model(batch["input_ids"], labels=batch["labels"], **extra), {})

    @property
    def _inputs(self) -> tuple[str, ...]:
        # Padding at the end needs no mask: a token sees earlier ones only, and padding is no label.
        return ("boundaries",) if self.pretrained is None else ()

    def metric(self) -> LanguageMetric:
        answers = bool(self.dataset.dialogues)
        return LanguageMetric(self._inputs, answers, answers and self.control == "noise")

    def blocks(self, model: Module) -> list[Module]:
        return decoder_layers(model, self._layers)

    def model_parts(self, model: Module) -> Mapping[str, Sequence[Module]]:
        """As HasParts.model_parts."""
        tables = [module for module in model.modules() if isinstance(module, Embedding)]
        head: Any = model
        return {LAYERS: self.blocks(model), "embedding": tables, "head": [head.head]}

    def preview(self, model: Module) -> str | None:
        """The model's continuation of the first validation sample. Collective."""
        return preview_text(model, self.dataset, self.context.device)

    def predictions(self, model: Module) -> Predictions:
        """Completions of a few validation samples; see preview.predict. Collective."""
        return predict(model, self.dataset, self.context.device)

    def answers_requests(self) -> bool:
        return self.prompting.is_request

    def prompts(self, path: Path) -> Sequence[Prompt]:
        """The prompts in a file; see prompts.read_prompts. Raises DataError."""
        from models.common.table import declared_columns
        from models.language.generate import read_prompts

        return read_prompts(path, declared_columns(self.columns), self.on_bad)

    def dropped_tokens(self, prompt: Prompt, sampling: Sampling) -> int:
        return self.prompting.dropped_tokens(prompt, sampling)

    def generate(self, model: Module, prompt: Prompt, sampling: Sampling) -> Iterator[str]:
        return self.prompting.generate(model, prompt, sampling)

    def flops_per_sample(self, model: Module) -> float:
        """Of a sample of mean length; see count_flops."""
        ids = torch.zeros(1, round(self.dataset.mean_length), dtype=torch.int64)
        frozen = self.blocks(model)[: self.frozen_layers]
        names = [name for name, module in model.named_modules() if module in frozen]
        return layers.count_flops(model, (ids, ids, None, True), names)

    def facts(self) -> Mapping[str, Any]:
        loaded = {} if self.loaded is None else {"start": self.loaded}
        coverage = {"pretrained": self.coverage} if self.coverage else {}
        return self.dataset.facts() | loaded | coverage

    def sample_text(self) -> Sequence[SamplePart]:
        """The first training sample, in the tokenizer's chat template if it has one."""
        return sample_text(self.data("train").row(0), self.dataset.tokenizer)

    def write_hugging_face(self, folder: Path) -> None:
        """Write configuration and tokenizer for transformers into `folder`.

        Disk access. Raises DataError.
        """
        from models.language import hugging_face

        tokenizer, length = self._tokenizer(), self._row_length()
        if self.pretrained is None:
            size, heads = self._size_for_tokenizer(), self.kv_heads
            hugging_face.write_config(folder, size, heads, length, tokenizer)
        else:
            hugging_face.copy_config(self.pretrained, folder)
        hugging_face.write_tokenizer(folder, tokenizer, length, is_chat=self._is_chat())

    def base_folder(self) -> Path | None:
        return self.pretrained

    def write_adapted(self, weights: Mapping[str, Tensor], folder: Path, *, merged: bool) -> None:
        """Write the tokenizer, and adapters for peft or the merged model for transformers.

        Disk access. Raises DataError.
        """
        from models.language import hugging_face, pretrained

        assert self.pretrained is not None
        inner, _ = pretrained.load_inner(self.pretrained)
        if self.quantizer is not None and merged:  # the weights that the adapters were trained on
            self.quantizer.round(inner)
        named = {self.hugging_face_name(name): tensor for name, tensor in weights.items()}
        pretrained.write(inner, self.lora, named, folder, merged=merged)
        if merged:
            hugging_face.copy_config(self.pretrained, folder)
        tokenizer, length = self._tokenizer(), self._row_length()
        hugging_face.write_tokenizer(folder, tokenizer, length, is_chat=self._is_chat())

    def hugging_face_name(self, name: str) -> str:
        return name.removeprefix("inner.")

    def _is_chat(self) -> bool:
        folder = self.context.folder
        is_known = folder is not None and (folder / FACTS_FILE).is_file()
        return is_known and model_facts.load(folder, _TextFacts).conversations

    def _size_for_tokenizer(self) -> Size:
        """The size, with the vocabulary of a local tokenizer rounded up to a multiple of 8."""
        if local := self._local_tokenizer():
            return replace(self.size, vocabulary=-(-local.size // 8) * 8)
        return self.size
