"""Task of the language family: next-token prediction on text and conversations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Embedding, Module
from torch.nn import functional as F

from gearshift.models.base import (
    LAYERS,
    Baseline,
    Batch,
    Context,
    DataError,
    Facts,
    Loss,
    Predictions,
    Prompt,
    SamplePart,
    Sampling,
    SplitName,
    Tensors,
)
from gearshift.models.catalog import HUB, folder_of, local_path
from gearshift.models.common import layers
from gearshift.models.common.config import declared_columns
from gearshift.models.common.data_reports import OnBad, listed, unknown_embedded
from gearshift.models.common.family import (
    FACTS_FILE,
    FamilyTask,
    Scores,
    Sums,
    load_facts,
    path_of,
    save_facts,
)
from gearshift.models.common.split import SPLITS, split_groups
from gearshift.models.language import preview
from gearshift.models.language.config import Data, Model
from gearshift.models.language.encoded import encode
from gearshift.models.language.model import IGNORE, BuiltIn, decoder_layers
from gearshift.models.language.readers.corpus import Corpus, from_records
from gearshift.models.language.rows import Row, Rules, TokenWindows, collate
from gearshift.models.language.tokenizer import ByteTokenizer, Tokenizer

if TYPE_CHECKING:
    import tokenizers

    from gearshift.models.common.table import Meanings
    from gearshift.models.language.dialogues import Samples
    from gearshift.models.language.model import Transformer
    from gearshift.models.language.pretrained import FromFolder, Pretrained

_MARK = "//"
"""Between the name of a source and that of a group in it: no name of a file has it."""
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
        """Read the settings without disk access."""
        super().__init__(model, data, context)
        # A setting is read only where it applies: unused settings are reported.
        self.tokenizer_name = model.tokenizer
        if model.pretrained is None:
            self.source = BuiltIn(model, context)
        else:
            from gearshift.models.language.pretrained import FromFolder

            self.source = FromFolder(folder_of(model.pretrained), model, context)
        # Adapters freeze all other weights, so that no layer is frozen beside them.
        self.has_adapters = self.source.has_adapters
        self.start: Path | None = None
        self.frozen_layers = 0
        self.is_lower = model.stage == "lower" and not self.has_adapters
        if model.stage == "whole":
            self.start = path_of(model.start)
            self.frozen_layers = 0 if self.has_adapters else model.freeze_layers
        self.paths = [data.path] if isinstance(data.path, str) else data.path
        self.names: list[str] = []
        """Of several sources, after setup."""
        self.weights = data.weights
        self.on_bad = data.on_bad
        self.control = data.control
        is_embedded = all(path.startswith("embedded:") for path in self.paths)
        self.answers = None if is_embedded else path_of(data.answers)
        self.columns = declared_columns(() if is_embedded else data.columns)
        self.length = data.seq_len
        layers.check_kernel(context.attention, context.device)

    def setup(self) -> None:
        """Read and split the data, train or load the tokenizer; store both in the run folder.

        Disk access: rank 0 first, then the other ranks. Raises DataError.
        """
        length = self._row_length()  # refuses a wrong model.pretrained before the data is read
        corpora = [read(path, self.answers, self.on_bad, self.columns) for path in self.paths]
        self.is_chat = not corpora[0].is_text
        self.noun = "requests" if self.is_chat else "documents"
        self._split(corpora)
        save_facts(_TextFacts(self.is_chat), self.context)

        self.tokenizer = self._load_tokenizer(corpora)
        rules = Rules(
            length,
            self.on_bad,
            self.control,
            self.rule.seed,
            self.source.single_document,
            self.source.longest,
        )
        self._facts = self._build_splits(corpora, rules)

    def _split(self, corpora: Sequence[Corpus]) -> None:
        """Split each source, and record the groups of all. Raises DataError."""
        earlier = self.rule.earlier or {}
        names = [""]
        if len(corpora) > 1 or any(_MARK in group for group in earlier):
            from gearshift.models.language import sources

            sources.check_sources(corpora)
            names = sources.source_names(self.paths)
            if len(names) > 1:
                self.names = names
        groups: dict[SplitName, list[str]] = {name: [] for name in SPLITS}
        for source, corpus in zip(names, corpora, strict=True):
            prefix = source + _MARK
            noun = self.noun
            if self.names:
                noun = f"{noun} of '{corpus.source.name}' that no source before it has"
            # A source alone has its groups in a run of several, too.
            if self.names or any(group.startswith(prefix) for group in earlier):
                corpus.prefix = prefix
            for name, members in split_groups(corpus.groups, self.rule, noun).items():
                groups[name] += members
        self.groups = groups
        self.save_split(groups)

    def _build_splits(self, corpora: Sequence[Corpus], rules: Rules) -> Facts:
        """Build the samples of each split; the facts of the data. Raises DataError.

        Neither text nor, for a large corpus, tokens are in memory.
        """
        kind: type[Samples] = TokenWindows
        if self.is_chat:
            from gearshift.models.language.dialogues import Dialogues

            kind = Dialogues
        parts: dict[SplitName, list[Samples]] = {name: [] for name in SPLITS}
        sums: Counter[str] = Counter()
        records = "exchanges" if self.is_chat else "documents"
        for corpus in corpora:
            encoded = encode(corpus, self.tokenizer, estimates=self.context.estimates)
            for side, (name, numbers) in enumerate(corpus.members(self.groups).items()):
                samples = kind(encoded, corpus, numbers, rules, side)
                parts[name].append(samples)
                sums.update(truncated_prompts=samples.truncated, skipped_rows=samples.skipped)
            sums["bytes"] += corpus.source.size or int(encoded.text_bytes.sum())
            sums[records] += len(corpus)
            sums.update(corpus.left_out)
        facts = self._facts_of_files(corpora)
        if self.names:
            from gearshift.models.language.sources import Mixture

            self.splits = {name: Mixture(parts[name], self.weights) for name in SPLITS}
            facts["sources"] = dict(zip(self.names, map(len, parts["train"]), strict=True))
        else:
            self.splits = {name: parts[name][0] for name in SPLITS}
        facts |= {
            "tokenizer": self.tokenizer.name,
            "seq_len": rules.length,
            "tokens": {name: sum(part.tokens for part in parts[name]) for name in SPLITS},
            **sums,
        }
        if sums["truncated_prompts"]:
            facts["warning"] = (
                f"{sums['truncated_prompts']} prompts lose their start: "
                f"shorten them, or raise  --seq-len {rules.length}  if the model allows it"
            )
        return facts

    def _facts_of_files(self, corpora: Sequence[Corpus]) -> dict[str, Any]:
        """What is known of the files before their samples."""
        sources = [corpus.source for corpus in corpora]
        meanings: dict[str, str] = {}
        assumed = []
        for corpus in corpora:
            meanings |= corpus.meanings
            assumed += [f"{name}: {listed(files, 1)}" for name, files in corpus.encodings.items()]
        facts: dict[str, Any] = {
            "source": " + ".join(source.name for source in sources),
            "kind": self._kind,
            "format": " and ".join(dict.fromkeys(source.format for source in sources)),
            "columns": meanings,
            "splits": "; ".join(filter(None, (source.other_splits for source in sources))),
            "encoding": "; ".join(assumed),
        }
        return {name: fact for name, fact in facts.items() if fact}

    @property
    def _temperature(self) -> float:
        """Answers are greedy; a text is continued by sampling."""
        return 0.0 if self.is_chat else 0.8

    @property
    def _kind(self) -> str:
        return "conversations" if self.is_chat else "text"

    def setup_without_data(self) -> None:
        self.tokenizer = self._load_tokenizer()
        self.start = None  # the initial weights are among the trained ones
        self.is_chat = load_facts(self.context.folder, _TextFacts).conversations
        self._window = self.source.longest or self._row_length()

    def continue_from(self, first: LanguageTask) -> None:
        """Check that the data is of the same kind as that of `first`. Raises DataError."""
        if self.is_chat != first.is_chat:
            raise DataError(
                f"the new data is {self._kind}, but the run trains on {first._kind}",
                where="data.path",
                allowed=first._kind,
            )

    def _load_tokenizer(self, corpora: Sequence[Corpus] = ()) -> Tokenizer:
        """The tokenizer of the settings; that of bpe of the run folder, or trained on `corpora`.

        Disk access; raises DataError.
        """
        if self._local is not None:
            return self._local
        if self.tokenizer_name == "bytes":
            return ByteTokenizer()
        from gearshift.models.common.subwords import TOKENIZER_FILE, load_or_fit
        from gearshift.models.language import subword_tokenizers as bpe

        if not corpora:
            return bpe.load((self.context.folder or Path()) / TOKENIZER_FILE)

        def fit() -> tokenizers.Tokenizer:
            if self.start is not None:
                return bpe.of_start(self.start).inner
            assert isinstance(self.source, BuiltIn)
            # The library uses about as much memory as the text has bytes.
            texts = self._training_texts(corpora, bpe.TRAINED_ON)
            return bpe.train(texts, self.source.size.vocabulary).inner

        return bpe.BpeTokenizer(load_or_fit(self.context, fit))

    def _training_texts(self, corpora: Sequence[Corpus], most_bytes: int) -> Iterator[str]:
        """Records at even distances: the beginning may be of another kind than the rest."""
        size = sum(corpus.source.size for corpus in corpora)
        step = max(1, math.ceil(size / most_bytes))
        for corpus in corpora:
            yield from corpus.texts(corpus.members(self.groups)["train"][::step])

    @cached_property
    def _local(self) -> Tokenizer | None:
        """Tokenizer of a file or folder, to which the model is fitted; None: a built-in one."""
        path = self.source.folder
        if self.tokenizer_name not in ("bytes", "bpe"):
            path = Path(self.tokenizer_name).expanduser()
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
            from gearshift.models.common import initial_weights

            names = [""]  # a prefix of all names
            if self.has_adapters:
                names = [name for name, p in model.named_parameters() if p.requires_grad]
            self.loaded["start"] = initial_weights.load(
                "model.start",
                model,
                self.start,
                _START,
                tuple(names),
                open_checkpoint=self.context.open_checkpoint,
            )
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
        length = None if self.is_chat else self.data("train").length
        return collate(samples, self.tokenizer.pad, length)

    def num_tokens(self, batch: Batch) -> int:
        return int(batch["tokens"])

    def loss(self, model: Module, batch: Batch) -> Loss:
        return Loss(self._output(model, batch), {})

    def metric(self) -> Sums:
        return Sums(self._counts, self._scores)

    def _counts(self, model: Module, batch: Batch) -> dict[str, Tensor]:
        nats, correct = self._output(model, batch, measure=True)
        return counts(nats, correct, batch, len(self.names))

    def _scores(self, sums: Tensors) -> Scores:
        """Metrics of the summed counts.

        bits_per_byte = nats per token × tokens per byte ÷ ln 2, independent of the tokenizer.
        `exact_match` exists for conversations only. `matched_gap` exists in a noise control: loss
        of permuted answers minus loss of true answers, in nats per token. Of several sources each
        has its loss; None: no sample of it was evaluated.
        """
        n = {name: total.item() for name, total in sums.items()}
        loss = n["nats"] / n["tokens"]
        metrics: Scores = {
            "val_loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),  # exp(710) overflows a float
            "bits_per_byte": n["nats"] / n["bytes"] / math.log(2),
            "token_accuracy": n["correct"] / n["tokens"],
        }
        if self.is_chat:
            metrics["exact_match"] = n["exact"] / n["answers"]
            if self.control == "noise":
                metrics["matched_gap"] = loss - n["true nats"] / n["true tokens"]
        for number, name in enumerate(self.names):
            tokens = n[f"{number} tokens"]
            metrics[f"val_loss_{name}"] = n[f"{number} nats"] / tokens if tokens else None
        return metrics

    def baselines(self, train: Iterable[Batch], held_out: Iterable[Batch]) -> list[Baseline]:
        """As HasBaselines.baselines: token frequencies, alone and after the previous token."""
        from gearshift.models.language.baselines import measure

        return measure(train, held_out, self.tokenizer.size, self.metric())

    def _output(self, model: Module, batch: Batch, **options: bool) -> Any:
        extra = {name: batch[name] for name in self.source.inputs}
        return model(batch["input_ids"], labels=batch["labels"], **extra, **options)

    def blocks(self, model: Module) -> list[Module]:
        return decoder_layers(model, self.source.num_layers)

    def model_parts(self, model: Any) -> Mapping[str, Sequence[Module]]:
        """As HasParts.model_parts."""
        return {
            LAYERS: self.blocks(model),
            "embedding": [module for module in model.modules() if isinstance(module, Embedding)],
            "head": [model.lm_head],
        }

    def preview(self, model: Module) -> str | None:
        """The first validation sample: a text is continued by sampling, an answer is greedy."""
        [(_, prompt, _, written)] = self._predict(model, 1, self._temperature).rows
        return f"{prompt}│{written}"

    def predictions(self, model: Module) -> Predictions:
        """Greedy completions of a few validation samples. Collective."""
        return self._predict(model, 3, 0.0)

    def _predict(self, model: Module, shown: int, temperature: float) -> Predictions:
        return preview.predict(
            model,
            self.data("val"),
            self.tokenizer,
            self.context.device,
            shown,
            temperature,
        )

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
            sampling = replace(sampling, temperature=self._temperature)
        tokens = generate.tokens(prompt, self.tokenizer, is_request=self.is_chat)
        return generate.generate(model, tokens, sampling, self.tokenizer, self._window)

    def flops_per_sample(self, model: Module) -> float:
        """Of a sample of mean length; see count_flops."""
        ids = torch.zeros(
            1,
            round(self.data("train").mean_length),
            dtype=torch.int64,
        )
        frozen = self.blocks(model)[: self.frozen_layers]
        names = [name for name, module in model.named_modules() if module in frozen]
        return layers.count_flops(model, (ids, ids, None, True), names)

    def facts(self) -> Facts:
        facts = {**self._facts, **super().facts()}
        if self.source.coverage:
            facts["pretrained"] = self.source.coverage
        if self.control == "noise":
            facts["control"] = self._control
        return facts

    @cached_property
    def _control(self) -> Any:
        """Band of each metric; a noise control outside it indicates a leak."""
        return self.data("val").control()

    def write_hugging_face(self, folder: Path, *, with_config: bool = True) -> None:
        """Write configuration and tokenizer for transformers into `folder`.

        Disk access. Raises DataError.
        """
        from gearshift.models.language.hugging_face import write_json, write_tokenizer

        tokenizer = self._load_tokenizer()
        length = self._row_length()
        run = self.context.folder
        is_chat = False
        if run is not None and (run / FACTS_FILE).is_file():
            is_chat = load_facts(run, _TextFacts).conversations
        write_tokenizer(folder, tokenizer, length, is_chat=is_chat)
        if with_config:
            for name, config in self.source.configs(length, tokenizer).items():
                write_json(folder / name, config)

    def base_folder(self) -> Path | None:
        return self.source.folder

    def write_adapted(self, weights: Tensors, folder: Path, *, merged: bool) -> None:
        """Write the tokenizer, and adapters for peft or the merged model for transformers.

        Disk access. Raises DataError.
        """
        assert not isinstance(self.source, BuiltIn)
        named = {self.hugging_face_name(name): tensor for name, tensor in weights.items()}
        self.source.write_adapted(named, folder, merged=merged)
        self.write_hugging_face(folder, with_config=merged)

    def hugging_face_name(self, name: str) -> str:
        return name.removeprefix("inner.")


def read(
    path: str,
    answers: Path | None,
    on_bad: OnBad,
    columns: Meanings | None = None,
) -> Corpus:
    """Read the corpus at `data.path`; see read_corpus. Raises DataError."""
    if not path.startswith("embedded:"):
        from gearshift.models.language.readers.file_corpus import read_corpus  # with all formats

        folder = Path(local_path(path)).expanduser()
        return read_corpus(folder, answers, on_bad, columns, has_one_split=path.startswith(HUB))
    if path == "embedded:python":
        from gearshift.models.language.embedded import read_documents

        return from_records(path, read_documents())
    if path == "embedded:commands":
        from gearshift.models.language.commands import read_conversations

        return from_records(path, read_conversations())
    from gearshift.models.language.formats import EMBEDDED

    raise unknown_embedded(path, EMBEDDED)


def counts(
    nats: Tensor,
    correct: Tensor,
    batch: Batch,
    num_sources: int = 0,
) -> dict[str, Tensor]:
    """What `batch` adds to the counts; `nats` and `correct` [batch, time] are those of each token.

    Of several sources, each has its nats and tokens as well.
    An answer is exact if each of its labels, which follow each other, is the likeliest token after
    the true tokens before it. By induction this holds if and only if greedy decoding produces the
    whole answer and ends there, so no text is generated.
    """
    valid = batch["labels"] != IGNORE
    source = batch["source"]
    if nats.device.type == "mps":  # has no float64
        nats, correct, valid, source = (x.cpu() for x in (nats, correct, valid, source))
    is_true = source < 0
    row_nats = nats.double().sum(1)
    tokens = valid.sum(1).double()

    # Answers are numbered in each row; the mistakes of each are counted.
    begins = valid & ~F.pad(valid, (1, 0))[:, :-1]
    number = begins.cumsum(1)
    answers = begins.sum(1)
    mistakes = (valid & ~correct).long()
    wrong = torch.zeros_like(number).scatter_add(1, (number - 1).clamp(min=0), mistakes)
    rows = {
        "nats": row_nats,
        "tokens": tokens,
        "correct": (correct & valid).sum(1),
        "bytes": tokens * batch["bytes_per_token"],
        "exact": answers - (wrong > 0).sum(1),
        "answers": answers,
    }
    # A product, because indexing would synchronize host and device.
    sums = {name: (x * ~is_true).sum() for name, x in rows.items()}
    parts: dict[str, Tensor] = {"true": is_true}
    for number in range(num_sources):
        parts[str(number)] = source == number
    for part, is_in_part in parts.items():
        sums[f"{part} nats"] = (row_nats * is_in_part).sum()
        sums[f"{part} tokens"] = (tokens * is_in_part).sum()
    return sums
