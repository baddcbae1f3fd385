"""Task of the doc_translation family: page image to translation as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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
from models.common.split import SPLITS, atomic_write, save_split, split_groups
from models.common.subwords import TOKENIZER_FILE
from models.doc_translation import pretrained, preview
from models.doc_translation.config import SIZES, Data, Model
from models.doc_translation.dataset import Pages, ReadSettings, Sample, collate, read
from models.doc_translation.metric import BeamMetric, Bleu, TranslationMetric
from models.doc_translation.model import DocTranslator, flops_per_sample, layers
from models.doc_translation.noise_control import MAX_GAIN, permute_images
from models.doc_translation.readers.page import Collection, Page
from models.doc_translation.readers.pairs import Layout
from models.doc_translation.vocabulary import Vocabulary, load, load_or_train

GROUPS = "documents"
SKIPPED_FILE = "left_out.json"
"""File of skipped pages and reasons in the run folder."""

PROBES = 200
"""Training pages sampled to estimate the lengths of translations."""


class DocTranslationTask:
    """Translation of page images; implements models.base.Task."""

    goal = Goal("val_bleu", "max")
    units = "tokens"
    channels_last = False

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Read the settings without disk access. Raises DataError for invalid sizes."""
        attention_kernels.check_kernel(context.attention, context.device)
        self.context = context
        size = SIZES[model.size]
        count, queries = model.decoder_layers or size.decoder_layers, model.queries or size.queries
        self.size = replace(size, decoder_layers=count, queries=queries)
        self.dropout = model.dropout
        self.pretrained = None if model.pretrained is None else Path(model.pretrained).expanduser()
        if self.pretrained is not None:
            self.partial, self.take_layers = model.partial, model.take_layers
        self.path, self.control, self.fraction = data.path, data.control, data.fraction
        self.read_settings = ReadSettings(
            Layout(data.source, data.target, data.paragraphs, data.font), data.split, data.on_bad
        )
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
        self.collection: Collection  # after setup, like the vocabulary
        self.vocabulary: Vocabulary
        self._pages: dict[SplitName, Pages] = {}
        self._reports: dict[str, pretrained.Report] = {}

    def setup(self) -> None:
        """Read and split the data, train or load the vocabulary; store both in the run folder.

        Disk access: rank 0 first, then the other ranks. Raises DataError.
        """
        collection = read(self.path, self.read_settings)
        self.splits = self._split(collection)
        folder = self.context.folder
        if folder is not None:
            save_split(self.splits, folder, self.context.reset_data)
            if collection.skipped and not (folder / SKIPPED_FILE).exists():
                rows = [{"page": page, "why": why} for page, why in collection.skipped]
                atomic_write(folder / SKIPPED_FILE, json.dumps(rows, indent=1, ensure_ascii=False))
        by_split: dict[SplitName, list[Page]] = {name: [] for name in SPLITS}
        side_of = {group: name for name in SPLITS for group in self.splits[name]}
        for page in collection.pages:
            if page.document in side_of:
                by_split[side_of[page.document]].append(page)
        self.vocabulary = self._fit_vocabulary(by_split["train"])
        for number, name in enumerate(SPLITS):
            pages, shown = by_split[name], None
            if self.control == "noise":
                shown = permute_images([p.document for p in pages], self.context.seed + number)
            self._pages[name] = Pages(pages, self.vocabulary, self.size, self.length, shown)
        self.collection = collection

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
                found = load(path)
                self.size = replace(self.size, vocabulary=-(-found.size // 8) * 8)
                return found
        texts: Iterator[str] = (page.target() for page in pages)
        return load_or_train(texts, self.size.vocabulary, self.context.folder)

    def build(self) -> Module:
        """Build the model on the CPU with random or pretrained weights."""
        model = DocTranslator(self.size, self.dropout, self.context.attention)
        if self.pretrained is not None:
            self._reports = pretrained.load(model, self.pretrained, self.partial, self.take_layers)
        return model

    def data(self, split: SplitName) -> Pages:
        """Pages of a split."""
        return self._pages[split]

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Collate pages; see dataset.collate."""
        return collate(samples, self.vocabulary.pad)

    def num_units(self, batch: Batch) -> int:
        """Number of labels in `batch`."""
        return batch["units"]

    def loss(self, model: Module, batch: Batch) -> Loss:
        """Cross-entropy in nats, summed over labels."""
        names = ("page_global", "page_local", "decoder_ids", "labels")
        return Loss(model(**{name: batch[name] for name in names}), {})

    def metric(self) -> TranslationMetric:
        """Scores of generated translations; see TranslationMetric."""
        is_noise = self.control == "noise"
        return TranslationMetric(
            self.vocabulary, self.collection.tokenize, self.count, against_blank=is_noise
        )

    def final_metric(self) -> BeamMetric | None:
        """Scores of translations by beam search; None for one beam."""
        if self.beams == 1:
            return None
        return BeamMetric(self.vocabulary, self.collection.tokenize, self.count, self.beams)

    def blocks(self, model: Module) -> list[Module]:
        """Layers of encoders, query transformers and decoder."""
        return layers(model)

    def preview(self, model: Module) -> str | None:
        """The model's translation of the first validation page. Collective."""
        return preview.preview_text(model, self.data("val"), self.count, self.context.device)

    def pictures(self) -> Sequence[Picture]:
        """Pictures of a few training pages beside their translations."""
        return preview.pictures(self.data("train"), self.read_settings.layout.font)

    def predictions(self, model: Module) -> Predictions:
        """Translations of a few validation pages; see preview.predict. Collective."""
        bleu, font = Bleu(self.collection.tokenize), self.read_settings.layout.font
        device = self.context.device
        return preview.predict(model, self.data("val"), self.count, bleu, font, device)

    def flops_per_sample(self, model: Module) -> float | None:
        """Operations for one page with the mean number of tokens."""
        counts = np.minimum(self._token_counts(), self.length)
        return flops_per_sample(self.size, round(float(counts.mean())))

    def _token_counts(self) -> np.ndarray:
        """Token counts of translations at even distances over the training pages."""
        pages = self.data("train")
        probes = sorted({int(i) for i in np.linspace(0, len(pages) - 1, PROBES)})
        return np.array([pages.count_tokens(i) for i in probes])

    def facts(self) -> Mapping[str, Any]:
        """Counts, splits, skipped pages and the BLEU signature."""
        facts: dict[str, Any] = {
            "source": self.collection.source,
            "groups": {name: len(self.splits[name]) for name in SPLITS},
            "samples": {name: len(self.data(name)) for name in SPLITS},
            "vocabulary": self.vocabulary.size,
            "seq_len": self.length,
            "max_new_tokens": self.count,
            "beams": self.beams,
            "cut_share": float((self._token_counts() > self.length).mean()),
            "bleu": Bleu(self.collection.tokenize).signature,
            **self.collection.counts,
        }
        if self._reports:
            facts["pretrained"] = {name: r.counts() for name, r in self._reports.items()}
        if self.control == "noise":
            facts["control"] = {"val_bleu_gain": {"max": MAX_GAIN}}
        return facts


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
