"""Task of the doc_translation family: page image to Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.nn import Module

from models.base import Batch, Context, DataError, Goal, Loss, Picture, Prediction, Predictions, SplitName
from models.common import initial_weights, model_facts, subwords
from models.common.data_files import few, files
from models.common.hub import folder_of
from models.common.layers import check_kernel, restrict_blocks
from models.common.noise_control import samples_of_others
from models.common.predictions import passed_over, spread_positions
from models.common.split import SPLITS, SplitRule, atomic_write, save_split, split_groups
from models.common.subwords import TOKENIZER_FILE
from models.doc_translation import prediction, pretrained, preview
from models.doc_translation.config import SIZES, Data, Model
from models.doc_translation.dataset import MAX_GAIN, Pages, PageSample, collate, read
from models.doc_translation.metric import Bleu, TranslationMetric
from models.doc_translation.model import ENCODERS, DocTranslator, flops_per_sample, layers
from models.doc_translation.readers.page import Collection, Page
from models.doc_translation.vocabulary import Vocabulary, load, load_or_train

if TYPE_CHECKING:
    from models.common.nf4 import Quantizer

GROUPS = "documents"
SKIPPED_FILE = "left_out.json"
"""File of skipped pages and reasons in the run folder."""
PROBES = 200
"""Training pages sampled to estimate the lengths of translations."""
_ENCODER = "a run folder of  --set model.stage=encoder , or a safetensors file of its model"


@dataclass(frozen=True)
class _PageFacts:
    """What a prediction needs to know of training."""

    vocabulary: int
    """Entries of the embedding of the decoder."""


class DocTranslationTask:
    """Translation of page images; implements models.base.Task."""

    goal, units = Goal("val_bleu", "max"), "tokens"
    saved_files: Sequence[str] = (model_facts.FACTS_FILE, TOKENIZER_FILE)
    """What setup_without_data reads in the run folder."""
    channels_last = False
    vocabulary: Vocabulary
    collection: Collection

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Read the settings without disk access. Raises DataError for invalid sizes."""
        check_kernel(context.attention, context.device)
        self.context = context
        size = self.size = SIZES[model.size]
        self.pretrained = None if model.pretrained is None else folder_of(model.pretrained)
        self.partial = [] if self.pretrained is None else model.partial
        self.path, self.control, self.rule = data.path, data.control, SplitRule.of(data, context)
        self.language, self.split, self.on_bad = data.target, data.split, data.on_bad
        self._data: dict[SplitName, Pages] = {}
        self._reports: dict[str, pretrained.Report] = {}
        self.loaded: str | None = None
        self.quantizer: Quantizer | None = None
        count, queries = model.decoder_layers or size.decoder_layers, model.queries or size.queries
        self.size = replace(size, decoder_layers=count, queries=queries)
        self.dropout, self.is_encoder = model.dropout, model.stage == "encoder"
        # Settings without effect are not read, so that they are reported as unused.
        self.encoder, self.is_frozen = None, False
        if not self.is_encoder:
            self.encoder = None if model.encoder is None else Path(model.encoder).expanduser()
            self.is_frozen = model.freeze_encoder
        if self.is_frozen and model.quantize is not None:
            from models.common.nf4 import Quantizer

            self.quantizer = Quantizer(context.device)
        self.take_layers = None if self.pretrained is None else model.take_layers
        self.length = data.seq_len or self.size.positions
        if self.length > self.size.positions:
            raise DataError(
                f"data.seq_len {self.length} exceeds the positions of this size",
                where="data.seq_len",
                allowed=f"at most {self.size.positions}",
                fix=f"--set data.seq_len={self.size.positions}",
            )
        self.count = min(data.max_new_tokens or self.length, self.length)
        self.beams = data.beams

    def setup(self) -> None:
        """Read and split the data, train or load the vocabulary; store both in the run folder.

        Disk access: rank 0 first, then the other ranks. Raises DataError.
        """
        collection = self.collection = read(self.path, self.language, self.split, self.on_bad)
        self.splits = self._split(collection)
        folder, seed = self.context.folder, self.rule.seed
        if folder is not None:
            save_split(self.splits, folder, self.context.reset_data, self.rule)
            if collection.skipped and not (folder / SKIPPED_FILE).exists():
                rows = [{"page": page, "why": reason} for page, reason in collection.skipped]
                atomic_write(folder / SKIPPED_FILE, json.dumps(rows, indent=1, ensure_ascii=False))
        by_split: dict[SplitName, list[Page]] = {name: [] for name in SPLITS}
        side_of = {group: name for name in SPLITS for group in self.splits[name]}
        for page in collection.pages:
            if page.document in side_of:
                by_split[side_of[page.document]].append(page)
        self.vocabulary = self._fit_vocabulary(by_split["train"])
        model_facts.save(_PageFacts(self.size.vocabulary), folder)
        for number, (name, pages) in enumerate(by_split.items()):
            shown = None
            if self.control == "noise":
                shown = samples_of_others([page.document for page in pages], (seed, number))
            self._data[name] = Pages(pages, self.vocabulary, self.size, self.length, shown)

    def setup_without_data(self) -> None:
        self.pretrained = self.encoder = None  # their weights are among the trained ones
        self.quantizer = None  # and those in 4 bits are read as weights
        folder = self.context.folder
        count = model_facts.load(folder, _PageFacts).vocabulary
        self.size = replace(self.size, vocabulary=count)
        assert folder is not None, "the facts were loaded from it"
        self.vocabulary = load(folder / TOKENIZER_FILE)

    def continue_from(self, first: DocTranslationTask) -> None:
        """Loss and goal are the same for all pages."""

    def _split(self, collection: Collection) -> dict[SplitName, list[str]]:
        given = collection.given
        if given is None:
            return split_groups((page.document for page in collection.pages), self.rule, GROUPS)
        self.rule.refuse_fold("a file gives the split of this data", "--set data.split=article")
        if empty := next((side for side in SPLITS if not given[side]), None):
            raise DataError(
                f"the {empty} split is empty: none of its pages exists",
                where=collection.source,
                allowed="pages for train, val and test",
                fix="--set data.split=article",
            )
        splits: dict[SplitName, list[str]] = {}
        for side in SPLITS:
            documents = given[side]
            order = np.random.default_rng(self.rule.seed).permutation(len(documents))
            chosen = order[: max(1, round(self.rule.fraction * len(documents)))]
            splits[side] = sorted(documents[i] for i in chosen)
        return splits

    def _fit_vocabulary(self, pages: Sequence[Page]) -> Vocabulary:
        """Vocabulary of the pretrained decoder if it has one; otherwise trained on `pages`."""
        path = None if self.pretrained is None else self.pretrained / "decoder" / TOKENIZER_FILE
        if path is None or not path.is_file():
            texts = (page.target() for page in pages)
            return load_or_train(texts, self.size.vocabulary, self.context.folder)
        vocabulary = load(path)
        self.size = replace(self.size, vocabulary=-(-vocabulary.size // 8) * 8)
        subwords.save_tokenizer(vocabulary.inner, self.context.folder)
        return vocabulary

    def build(self) -> Module:
        """Build the model on the CPU with random or pretrained weights.

        The encoders of `model.encoder` replace those of `model.pretrained`. Raises DataError.
        """
        model = DocTranslator(self.size, self.dropout)
        restrict_blocks(layers(model), self.context.attention)
        if self.pretrained is not None:
            parts = tuple(pretrained.PARTS) if self.encoder is None else ("decoder",)
            self._reports = pretrained.load(model, self.pretrained, parts, self.partial, self.take_layers)
        if self.encoder is not None:
            encoder, prefixes = self.encoder, tuple(f"{name}." for name in ENCODERS)
            self.loaded = initial_weights.load("model.encoder", model, encoder, _ENCODER, prefixes)
        if self.is_encoder:
            model.train_only(model.global_encoder, model.local_encoder)
        if self.is_frozen:
            model.freeze(model.global_encoder, model.local_encoder)
        if self.quantizer is not None:
            self.quantizer.quantize_frozen(model)
        return model

    def data(self, split: SplitName) -> Pages:
        return self._data[split]

    def collate(self, samples: Sequence[PageSample]) -> Batch:
        return collate(samples, self.vocabulary.pad)

    def num_units(self, batch: Batch) -> int:
        return batch["units"]

    def loss(self, model: Module, batch: Batch) -> Loss:
        names = ("page_global", "page_local", "decoder_ids", "labels")
        return Loss(model(**{name: batch[name] for name in names}), {})

    def metric(self) -> TranslationMetric:
        given = self.vocabulary, self.collection.language, self.count
        return TranslationMetric(*given, against_blank=self.control == "noise")

    def final_metric(self) -> TranslationMetric | None:
        """Scores of translations by beam search; None for one beam."""
        if self.beams == 1:
            return None
        return TranslationMetric(self.vocabulary, self.collection.language, self.count, self.beams)

    def blocks(self, model: Module) -> list[Module]:
        return layers(model)

    def model_parts(self, model: Module) -> Mapping[str, Sequence[Module]]:
        """As HasParts.model_parts."""
        return {"encoder": [model.get_submodule(name) for name in ENCODERS]}

    def preview(self, model: Module) -> str | None:
        """The translation of the first validation page. Collective."""
        return preview.preview_text(model, self._data["val"], self.count, self.context.device)

    def pictures(self) -> Sequence[Picture]:
        return preview.pictures(self._data["train"])

    def predictions(self, model: Module) -> Predictions:
        """Translations of a few validation pages. Collective."""
        device, bleu = self.context.device, Bleu(self.collection.language)
        return preview.predict(model, self._data["val"], self.count, bleu, device)

    def predict(self, model: Module, path: Path) -> Iterator[Prediction]:
        pages = prediction.read(path)
        size, device = self.size, self.context.device
        if self.is_encoder:
            yield from prediction.features(model, pages, size, device)
        else:
            decoding = self.vocabulary, self.count, self.beams
            yield from prediction.predict(model, pages, size, *decoding, device)
        yield from passed_over(path, filter(prediction.is_image, files(path)))

    def flops_per_sample(self, model: Module) -> float | None:
        counts = np.minimum(self._token_counts(), self.length)
        return flops_per_sample(self.size, round(float(counts.mean())), self.is_frozen)

    def _token_counts(self) -> np.ndarray:
        pages = self._data["train"]
        return np.array([pages.count_tokens(i) for i in spread_positions(len(pages), PROBES)])

    def facts(self) -> Mapping[str, Any]:
        facts: dict[str, Any] = {
            "source": self.collection.source,
            "groups": {name: len(self.splits[name]) for name in SPLITS},
            "samples": {name: len(self.data(name)) for name in SPLITS},
        }
        facts["vocabulary"], facts["seq_len"] = self.vocabulary.size, self.length
        facts["max_new_tokens"], facts["beams"] = self.count, self.beams
        facts["cut_share"] = float((self._token_counts() > self.length).mean())
        facts["bleu"] = Bleu(self.collection.language).signature
        facts |= self.collection.counts
        if self.collection.notes:
            facts["notes"] = few(self.collection.notes)
        if self.loaded is not None:
            facts["encoder"] = self.loaded
        if self._reports:
            facts["pretrained"] = {
                part: {what: len(names) for what, names in report.items()}
                for part, report in self._reports.items()
            }
        if self.control == "noise":
            facts["control"] = {"val_bleu_gain": {"max": MAX_GAIN}}
        return facts
