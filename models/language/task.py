"""Task of the language family: next-token prediction on text and conversations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Embedding, Module

from gearshift.models.base import (
    LAYERS,
    Batch,
    Context,
    DataError,
    Loss,
    Predictions,
    Prompt,
    SamplePart,
    Sampling,
)
from gearshift.models.catalog import folder_of
from gearshift.models.common import layers
from gearshift.models.common.config import declared_columns
from gearshift.models.common.family import (
    FACTS_FILE,
    FamilyTask,
    Sums,
    load_facts,
    path_of,
    save_facts,
)
from gearshift.models.language import preview
from gearshift.models.language.config import Data, Model
from gearshift.models.language.dataset import build_splits, read
from gearshift.models.language.metric import counts, scores
from gearshift.models.language.model import BuiltIn, decoder_layers
from gearshift.models.language.readers.corpus import split_ends
from gearshift.models.language.rows import Dialogues, Row, Rules, TokenWindows, collate
from gearshift.models.language.tokenizer import ByteTokenizer, Tokenizer

if TYPE_CHECKING:
    import tokenizers

    from gearshift.models.language.model import Transformer
    from gearshift.models.language.pretrained import FromFolder, Pretrained

_START = "a run folder of  --set model.stage=lower , or a safetensors file of its model"


@dataclass(frozen=True)
class _TextFacts:
    """What a prediction needs to know of training."""

    conversations: bool
    """Whether a prompt is a request."""


class LanguageTask(FamilyTask):
    """Next-token prediction; implements models.base.Task."""

    units = "tokens"
    saved_files = ("tokenizer.json", FACTS_FILE)
    tokenizer: Tokenizer
    """After setup and setup_without_data, like the next one."""
    is_chat: bool
    """Whether the data is conversations."""
    source: BuiltIn | FromFolder
    """Where the model is from."""

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Read the settings without disk access. Raises DataError for an invalid kv_heads."""
        super().__init__(model, data, context)
        # A setting is read only where it applies: unused settings are reported.
        self.tokenizer_name = model.tokenizer
        if model.pretrained is None:
            self.source = BuiltIn(model, context)
        else:
            from gearshift.models.language.pretrained import FromFolder

            self.source = FromFolder(folder_of(model.pretrained), model, context)
        self.has_adapters = self.source.has_adapters
        self.start: Path | None = None
        self.frozen_layers = 0
        self.is_lower = model.stage == "lower" and not self.has_adapters
        if model.stage == "whole":
            self.start = path_of(model.start)
            self.frozen_layers = 0 if self.has_adapters else model.freeze_layers
        self.path = data.path
        self.on_bad = data.on_bad
        self.control = data.control
        is_embedded = self.path.startswith("embedded:")
        self.answers = None if is_embedded else path_of(data.answers)
        self.columns = declared_columns(() if is_embedded else data.columns)
        self.length = data.seq_len
        layers.check_kernel(context.attention, context.device)

    def setup(self) -> None:
        """Read and split the data, train or load the tokenizer; store both in the run folder.

        Disk access: rank 0 first, then the other ranks. Raises DataError.
        """
        length = self._row_length()
        source = self.source
        corpus = read(self.path, self.answers, self.on_bad, self.columns)
        self.is_chat = not corpus.is_text
        self.noun = "requests" if self.is_chat else "documents"
        if corpus.source.is_cut and self.rule.earlier is None:
            self.groups = split_ends(corpus, self.rule)
            self.save_split(self.groups)
        else:
            self.groups = self.split_groups(corpus.groups)
        save_facts(_TextFacts(self.is_chat), self.context.folder)

        def texts(most: int) -> Iterator[str]:
            return corpus.texts(
                corpus.members(self.groups)["train"][:: -(-corpus.source.size // most) or 1]
            )

        self.tokenizer = self._load_tokenizer(texts)
        seed = self.rule.seed
        rules = Rules(
            length, self.on_bad, self.control, seed, source.single_document, source.longest
        )
        splits, self._facts = build_splits(corpus, self.groups, self.tokenizer, rules)
        self.splits = {**splits}

    def setup_without_data(self) -> None:
        self.tokenizer = self._load_tokenizer()
        self.start = None
        self.is_chat = load_facts(self.context.folder, _TextFacts).conversations
        self._window = self.source.longest or self._row_length()

    def continue_from(self, first: LanguageTask) -> None:
        """Check that the data is of the same kind as that of `first`. Raises DataError."""
        old, new = (("text", "conversations")[task.is_chat] for task in (first, self))
        if old != new:
            raise DataError(
                f"the new data is {new}, but the run trains on {old}",
                where="data.path",
                allowed=old,
            )

    def _load_tokenizer(self, texts: Callable[[int], Iterable[str]] | None = None) -> Tokenizer:
        """The tokenizer of the settings; one of bpe of the run folder, or else trained.

        `texts` gives the training text, at most so many bytes of it. Disk access; raises DataError.
        """
        if self._local is not None:
            return self._local
        if self.tokenizer_name == "bytes":
            return ByteTokenizer()
        from gearshift.models.common.subwords import TOKENIZER_FILE, load_or_fit
        from gearshift.models.language import subword_tokenizers as bpe

        folder = self.context.folder
        source = self.source
        if texts is None:
            return bpe.load((folder or Path()) / TOKENIZER_FILE)

        def fit() -> tokenizers.Tokenizer:
            if self.start is not None:
                return bpe.of_start(self.start).inner
            assert isinstance(source, BuiltIn)
            # The library uses about as much memory as the text has bytes.
            return bpe.train(texts(bpe.TRAINED_ON), source.size.vocabulary).inner

        return bpe.BpeTokenizer(load_or_fit(folder, fit))

    @cached_property
    def _local(self) -> Tokenizer | None:
        """Tokenizer of a local file or folder, to which the model is fitted; None: a built-in one."""
        is_built_in = self.tokenizer_name in ("bytes", "bpe")
        path = self.source.folder if is_built_in else Path(self.tokenizer_name).expanduser()
        if path is None:
            return None
        from gearshift.models.language import subword_tokenizers

        tokenizer = subword_tokenizers.load(path)
        self.source.fit(tokenizer)
        return tokenizer

    def _row_length(self) -> int:
        length = self.length or self.source.context
        return min(length, self.source.longest or length)

    def network(self) -> Transformer | Pretrained:
        """The model, for a tokenizer from a file. Raises DataError."""
        self._local  # noqa: B018  to fit the source
        return self.source.build()

    def build(self) -> Module:
        """Build the model on the CPU with random weights, or load it; then freeze layers.

        `model.start` overwrites the weights, of adapters only the adapters. Raises DataError.
        """
        model = self.network()
        blocks = self.blocks(model)
        count = self.frozen_layers
        if self.start is not None:
            adapters = tuple(name for name, p in model.named_parameters() if p.requires_grad)
            names = adapters if self.has_adapters else ("",)
            from gearshift.models.common import initial_weights

            loaded = initial_weights.load("model.start", model, self.start, _START, names)
            self.loaded["start"] = loaded
        if count > len(blocks):
            raise DataError(
                f"model.freeze_layers {count}: the model has {len(blocks)} layers",
                where="model.freeze_layers",
                allowed=f"0 to {len(blocks)}",
                fix=f"--set model.freeze_layers={len(blocks) // 2}",
            )
        if self.is_lower:
            model.freeze(*blocks[len(blocks) // 2 :])
        elif count:
            model.freeze(self.model_parts(model)["embedding"][0], *blocks[:count])
        return model

    def collate(self, samples: Sequence[Row]) -> Batch:
        return collate(samples, self.tokenizer.pad, self.data("train").row_length)

    def num_tokens(self, batch: Batch) -> int:
        return int(batch["tokens"])

    def loss(self, model: Module, batch: Batch) -> Loss:
        return Loss(self._output(model, batch), {})

    def metric(self) -> Sums:
        is_noise = self.control == "noise"
        return Sums(self._counts, partial(scores, has_answers=self.is_chat, is_noise=is_noise))

    def _counts(self, model: Module, batch: Batch) -> Mapping[str, Tensor]:
        nats, correct = self._output(model, batch, measure=True)
        return counts(nats, correct, batch)

    def _output(self, model: Module, batch: Batch, **options: bool) -> Any:
        extra = {name: batch[name] for name in self.source.inputs}
        return model(batch["input_ids"], labels=batch["labels"], **extra, **options)

    def blocks(self, model: Module) -> list[Module]:
        return decoder_layers(model, self.source.num_layers)

    def model_parts(self, model: Module) -> Mapping[str, Sequence[Module]]:
        """As HasParts.model_parts."""
        tables = [module for module in model.modules() if isinstance(module, Embedding)]
        return {
            LAYERS: self.blocks(model),
            "embedding": tables,
            "head": [self.source.head_of(model)],
        }

    def preview(self, model: Module) -> str | None:
        """The first validation sample: a text is continued by sampling, a request answered greedily."""
        [(_, prompt, _, written, _)] = self._predict(model, 1, self.data("val").temperature).rows
        return f"{prompt}│{written}"

    def predictions(self, model: Module) -> Predictions:
        """Greedy completions of a few validation samples. Collective."""
        return self._predict(model, 3, 0.0)

    def _predict(self, model: Module, shown: int, temperature: float) -> Predictions:
        split = self.data("val")
        device = self.context.device
        return preview.predict(model, split, self.tokenizer, device, shown, temperature)

    def sample_text(self) -> Sequence[SamplePart]:
        """The first training sample, in the tokenizer's chat template if it has one."""
        return preview.sample_text(self.data("train").sample(0), self.tokenizer)

    @property
    def prompt_suffixes(self) -> Collection[str]:
        from gearshift.models.language.readers.files import SUFFIXES

        return SUFFIXES

    def answers_requests(self) -> bool:
        return self.is_chat

    def prompts(self, path: Path) -> Sequence[Prompt]:
        """The prompts in a file; see read_prompts. Raises DataError."""
        from gearshift.models.language.generate import read_prompts

        return read_prompts(path, self.columns, self.on_bad)

    def dropped_tokens(self, prompt: Prompt, sampling: Sampling) -> int:
        from gearshift.models.language import generate

        tokens = generate.tokens(prompt, self.tokenizer, is_request=self.is_chat)
        return len(tokens) - len(generate.fitting(tokens, self._window, sampling.max_tokens))

    def generate(self, model: Any, prompt: Prompt, sampling: Sampling) -> Iterator[str]:
        """As in previews, the default is to answer greedily and to continue a text by sampling."""
        from gearshift.models.language import generate

        if sampling.temperature is None:
            kind = Dialogues if self.is_chat else TokenWindows
            sampling = replace(sampling, temperature=kind.temperature)
        tokens = generate.tokens(prompt, self.tokenizer, is_request=self.is_chat)
        return generate.generate(model, tokens, sampling, self.tokenizer, self._window)

    def flops_per_sample(self, model: Module) -> float:
        """Of a sample of mean length; see count_flops."""
        ids = torch.zeros(1, round(self.data("train").mean_length), dtype=torch.int64)
        frozen = self.blocks(model)[: self.frozen_layers]
        names = [name for name, module in model.named_modules() if module in frozen]
        return layers.count_flops(model, (ids, ids, None, True), names)

    def facts(self) -> Mapping[str, Any]:
        pretrained = {"pretrained": self.source.coverage} if self.source.coverage else {}
        control = {"control": self._control} if self.control == "noise" else {}
        return {**self._facts, **super().facts(), **pretrained, **control}

    @cached_property
    def _control(self) -> Mapping[str, Mapping[str, float]]:
        """Band of each metric; a noise control outside it indicates a leak."""
        bands: Mapping[str, Mapping[str, float]] = self.data("val").control(
            self.data("train"), self.tokenizer.size
        )
        return bands

    def write_hugging_face(self, folder: Path, *, with_config: bool = True) -> None:
        """Write configuration and tokenizer for transformers into `folder`.

        Disk access. Raises DataError.
        """
        from gearshift.models.language.hugging_face import write_json, write_tokenizer

        tokenizer = self._load_tokenizer()
        run = self.context.folder
        length = self._row_length()
        is_known = run is not None and (run / FACTS_FILE).is_file()
        is_chat = is_known and load_facts(run, _TextFacts).conversations
        write_tokenizer(folder, tokenizer, length, is_chat=is_chat)
        for name, config in self.source.configs(length, tokenizer).items() if with_config else ():
            write_json(folder / name, config)

    def base_folder(self) -> Path | None:
        return self.source.folder

    def write_adapted(self, weights: Mapping[str, Tensor], folder: Path, *, merged: bool) -> None:
        """Write the tokenizer, and adapters for peft or the merged model for transformers.

        Disk access. Raises DataError.
        """
        assert not isinstance(self.source, BuiltIn)
        named = {self.hugging_face_name(name): tensor for name, tensor in weights.items()}
        self.source.write_adapted(named, folder, merged=merged)
        self.write_hugging_face(folder, with_config=merged)

    def hugging_face_name(self, name: str) -> str:
        return name.removeprefix("inner.")
