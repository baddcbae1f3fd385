"""Task of the doc_translation family: page image to Markdown, and masked pages before it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import Module

from models.base import (
    Batch,
    Context,
    DataError,
    Goal,
    Loss,
    Picture,
    Prediction,
    Predictions,
    SplitName,
)
from models.common import initial_weights, model_facts, subwords
from models.common.data_files import few
from models.common.layers import check_kernel
from models.common.split import SPLITS, atomic_write, save_split, split_groups
from models.common.subwords import TOKENIZER_FILE
from models.common.table import declared_columns
from models.doc_translation import masked_pages, prediction, pretrained, preview
from models.doc_translation.config import SIZES, Data, Model
from models.doc_translation.dataset import (
    MAX_GAIN,
    MAX_R2_GAIN,
    Pages,
    ReadSettings,
    collate,
    permute_images,
    read,
)
from models.doc_translation.masked_pages import MaskedEncoders, MaskedMetric, MaskedPages
from models.doc_translation.metric import BeamMetric, Bleu, TranslationMetric
from models.doc_translation.model import DocTranslator, flops_per_sample, layers
from models.doc_translation.readers.page import Collection, Page
from models.doc_translation.readers.pairs import Layout
from models.doc_translation.vocabulary import Vocabulary, load, load_or_train

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
    """Translation of page images, or masked pages; implements models.base.Task."""

    saved_files: Sequence[str] = (model_facts.FACTS_FILE, TOKENIZER_FILE)
    """What setup_without_data reads in the run folder, unless the stage is encoder."""
    channels_last = False

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Read the settings without disk access. Raises DataError for invalid sizes."""
        check_kernel(context.attention, context.device)
        self.context = context
        self.size = SIZES[model.size]
        self.translates = model.stage == "whole"
        self.pretrained = _path(model.pretrained)
        self.partial = [] if self.pretrained is None else model.partial
        self.path, self.control, self.fraction = data.path, data.control, data.fraction
        # Settings without effect are not read, so that they are reported as unused.
        target = data.target if self.translates else None
        columns = declared_columns(data.columns)
        layout = Layout(data.source, target, data.paragraphs, data.font, columns)
        self.read_settings = ReadSettings(layout, data.split, data.on_bad)
        self.collection: Collection  # after setup, like the vocabulary
        self._reports: dict[str, pretrained.TensorMatches] = {}
        self.loaded: str | None = None
        if self.translates:
            self.goal, self.units = Goal("val_bleu", "max"), "tokens"
            self._read_translation_settings(model, data)
        else:
            self.goal, self.units = Goal("val_masked_r2", "max"), "patches"
            self.mask_share = model.mask_share
            self._masked: dict[SplitName, MaskedPages] = {}

    def _read_translation_settings(self, model: Model, data: Data) -> None:
        """The settings of stage whole. Raises DataError for an invalid length."""
        size = self.size
        count, queries = model.decoder_layers or size.decoder_layers, model.queries or size.queries
        self.size = replace(size, decoder_layers=count, queries=queries)
        self.dropout = model.dropout
        self.encoder, self.is_frozen = _path(model.encoder), model.freeze_encoder
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
        self.vocabulary: Vocabulary
        self._pages: dict[SplitName, Pages] = {}

    def setup(self) -> None:
        """Read and split the data, train or load the vocabulary; store both in the run folder.

        Stage encoder has no vocabulary. Disk access: rank 0 first, then the other ranks. Raises
        DataError.
        """
        collection = read(self.path, self.read_settings)
        self.splits = self._split(collection)
        folder = self.context.folder
        if folder is not None:
            save_split(self.splits, folder, self.context.reset_data)
            if collection.skipped and not (folder / SKIPPED_FILE).exists():
                rows = [{"page": page, "why": reason} for page, reason in collection.skipped]
                atomic_write(folder / SKIPPED_FILE, json.dumps(rows, indent=1, ensure_ascii=False))
        by_split: dict[SplitName, list[Page]] = {name: [] for name in SPLITS}
        side_of = {group: name for name in SPLITS for group in self.splits[name]}
        for page in collection.pages:
            if page.document in side_of:
                by_split[side_of[page.document]].append(page)
        if self.translates:
            self.vocabulary = self._fit_vocabulary(by_split["train"])
        for number, name in enumerate(SPLITS):
            pages, shown, seed = by_split[name], None, self.context.seed
            if self.control == "noise":
                shown = permute_images([p.document for p in pages], seed + number)
            if self.translates:
                self._pages[name] = Pages(pages, self.vocabulary, self.size, self.length, shown)
            else:
                fixed = None if name == "train" else seed
                self._masked[name] = MaskedPages(pages, self.size, self.mask_share, fixed, shown)
        self.collection = collection
        if self.translates:
            model_facts.save(_PageFacts(self.size.vocabulary), folder)

    def setup_without_data(self) -> None:
        self.pretrained = self.encoder = None  # their weights are among the trained ones
        folder = self.context.folder
        if self.translates:
            count = model_facts.load(folder, _PageFacts).vocabulary
            self.size = replace(self.size, vocabulary=count)
            assert folder is not None, "the facts were loaded from it"
            self.vocabulary = load(folder / TOKENIZER_FILE)

    def continue_from(self, first: DocTranslationTask) -> None:
        """Score masked pages against the same mean page as `first`."""
        if not self.translates:
            self.mean_page = first.mean_page

    @cached_property
    def mean_page(self) -> tuple[Tensor, Tensor]:
        """Of stage encoder: the mean training page; see MaskedPages. May read from disk."""
        return self._masked["train"].mean_page()

    def _split(self, collection: Collection) -> dict[SplitName, list[str]]:
        seed, given = self.context.seed, collection.given
        if given is None:
            groups = (page.document for page in collection.pages)
            share, earlier = self.context.eval_share, self.context.earlier_splits
            return split_groups(groups, self.fraction, share, seed, GROUPS, earlier)
        source = collection.source
        return {side: _part(given[side], self.fraction, seed, side, source) for side in SPLITS}

    def _fit_vocabulary(self, pages: Sequence[Page]) -> Vocabulary:
        """Vocabulary of the pretrained decoder if it has one; otherwise trained on `pages`."""
        if self.pretrained is not None:
            path = self.pretrained / "decoder" / TOKENIZER_FILE
            if path.is_file():
                vocabulary = load(path)
                self.size = replace(self.size, vocabulary=-(-vocabulary.size // 8) * 8)
                subwords.save_tokenizer(vocabulary.inner, self.context.folder)
                return vocabulary
        texts: Iterator[str] = (page.target() for page in pages)
        return load_or_train(texts, self.size.vocabulary, self.context.folder)

    def build(self) -> Module:
        """Build the model on the CPU with random or pretrained weights.

        The encoders of `model.encoder` replace those of `model.pretrained`. Raises DataError.
        """
        kernel = self.context.attention
        if not self.translates:
            masked = MaskedEncoders(self.size, kernel)
            self._fill(masked, ("global", "local"), None)
            return masked
        model = DocTranslator(self.size, self.dropout, kernel)
        parts = tuple(pretrained.PARTS) if self.encoder is None else ("decoder",)
        self._fill(model, parts, self.take_layers)
        if self.encoder is not None:
            encoder, prefixes = self.encoder, masked_pages.ENCODERS
            self.loaded = initial_weights.load("model.encoder", model, encoder, _ENCODER, prefixes)
        if self.is_frozen:
            model.freeze_encoders()
        return model

    def _fill(self, model: Module, parts: Sequence[str], take_layers: Sequence[int] | None) -> None:
        folder = self.pretrained
        if folder is not None:
            self._reports = pretrained.load(model, folder, parts, self.partial, take_layers)

    def data(self, split: SplitName) -> Pages | MaskedPages:
        return self._pages[split] if self.translates else self._masked[split]

    def collate(self, samples: Sequence[Any]) -> Batch:
        if not self.translates:
            return masked_pages.collate(samples)
        return collate(samples, self.vocabulary.pad)

    def num_units(self, batch: Batch) -> int:
        return batch["units"]

    def loss(self, model: Module, batch: Batch) -> Loss:
        if not self.translates:
            guesses = masked_pages.predict(model, batch)
            truth = masked_pages.true_patches(batch, self.size)
            errors = masked_pages.squared_errors(guesses, truth)
            whole, local = masked_pages.masked_sums(errors, batch)
            return Loss(whole + local, {})
        names = ("page_global", "page_local", "decoder_ids", "labels")
        return Loss(model(**{name: batch[name] for name in names}), {})

    def metric(self) -> TranslationMetric | MaskedMetric:
        if not self.translates:
            return MaskedMetric(self.size, self.mean_page)
        is_noise = self.control == "noise"
        return TranslationMetric(
            self.vocabulary, self._tokenize, self.count, against_blank=is_noise
        )

    def final_metric(self) -> BeamMetric | None:
        """Scores of translations by beam search; None for one beam, and in stage encoder."""
        if not self.translates or self.beams == 1:
            return None
        return BeamMetric(self.vocabulary, self._tokenize, self.count, self.beams)

    @property
    def _tokenize(self) -> str:
        assert self.collection.tokenize is not None, "model.stage is whole"
        return self.collection.tokenize

    def blocks(self, model: Module) -> list[Module]:
        return layers(model)

    def preview(self, model: Module) -> str | None:
        """The translation of the first validation page; None in stage encoder. Collective."""
        if not self.translates:
            return None
        return preview.preview_text(model, self._pages["val"], self.count, self.context.device)

    def pictures(self) -> Sequence[Picture]:
        if not self.translates:
            return preview.masked_pictures(self._masked["train"])
        return preview.pictures(self._pages["train"], self.read_settings.layout.font)

    def predictions(self, model: Module) -> Predictions:
        """Translations or masked patches of a few validation pages. Collective."""
        device = self.context.device
        if not self.translates:
            return preview.predict_masked(model, self._masked["val"], self.mean_page, device)
        bleu, font = Bleu(self._tokenize), self.read_settings.layout.font
        return preview.predict(model, self._pages["val"], self.count, bleu, font, device)

    def predict(self, model: Module, path: Path) -> Iterator[Prediction]:
        layout = replace(self.read_settings.layout, target=None)
        pages = prediction.read(path, layout, self.read_settings.on_bad)
        if not self.translates:
            return prediction.features(model, pages, self.size, self.context.device)
        decoding = prediction.Decoding(self.vocabulary, self.count, self.beams)
        return prediction.predict(model, pages, self.size, decoding, self.context.device)

    def flops_per_sample(self, model: Module) -> float | None:
        if not self.translates:
            return masked_pages.flops_per_sample(self.size)
        counts = np.minimum(self._token_counts(), self.length)
        return flops_per_sample(self.size, round(float(counts.mean())), self.is_frozen)

    def _token_counts(self) -> np.ndarray:
        pages = self._pages["train"]
        probes = sorted({int(i) for i in np.linspace(0, len(pages) - 1, PROBES)})
        return np.array([pages.count_tokens(i) for i in probes])

    def facts(self) -> Mapping[str, Any]:
        facts: dict[str, Any] = {
            "source": self.collection.source,
            "groups": {name: len(self.splits[name]) for name in SPLITS},
            "samples": {name: len(self.data(name)) for name in SPLITS},
            **(self._translation_facts() if self.translates else {}),
            **self.collection.counts,
        }
        if self.collection.notes:
            facts["notes"] = few(self.collection.notes)
        if self.loaded is not None:
            facts["encoder"] = self.loaded
        if self._reports:
            facts["pretrained"] = {name: r.counts() for name, r in self._reports.items()}
        if self.control == "noise":
            facts["control"] = (
                {"val_bleu_gain": {"max": MAX_GAIN}}
                if self.translates
                else {"val_masked_gain": {"max": MAX_R2_GAIN}}
            )
        return facts

    def _translation_facts(self) -> dict[str, Any]:
        return {
            "vocabulary": self.vocabulary.size,
            "seq_len": self.length,
            "max_new_tokens": self.count,
            "beams": self.beams,
            "cut_share": float((self._token_counts() > self.length).mean()),
            "bleu": Bleu(self._tokenize).signature,
        }


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser()


def _part(
    documents: Sequence[str], fraction: float, seed: int, side: SplitName, source: str
) -> list[str]:
    """Select a `fraction` of the documents of a split. Raises DataError if there are none."""
    if not documents:
        raise DataError(
            f"the {side} split is empty: none of its pages exists",
            where=source,
            allowed="pages for train, val and test",
            fix="--set data.split=article",
        )
    order = np.random.default_rng(seed).permutation(len(documents))
    return sorted(documents[i] for i in order[: max(1, round(fraction * len(documents)))])
