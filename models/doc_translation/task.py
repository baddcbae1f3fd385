"""Task of the doc_translation family: page image to Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch.nn import Module

from gearshift.models.base import Baseline, Batch, Context, DataError, Draws, Goal, Groups, Loss
from gearshift.models.catalog import folder_of, local_path
from gearshift.models.common import subwords
from gearshift.models.common.bleu import Bleu
from gearshift.models.common.data_files import existing_path, unknown_format
from gearshift.models.common.data_reports import unknown_embedded
from gearshift.models.common.family import (
    ENCODER,
    FACTS_FILE,
    FamilyTask,
    Numbers,
    columns_of,
    load_facts,
    padded,
    save_facts,
    spread_positions,
)
from gearshift.models.common.hugging_face import Coverage
from gearshift.models.common.layers import check_kernel, restrict_blocks
from gearshift.models.common.subwords import TOKENIZER_FILE
from gearshift.models.doc_translation import embedded, formats, images, pretrained, showing
from gearshift.models.doc_translation.config import SIZES, Data, Model
from gearshift.models.doc_translation.metric import TranslationMetric, bleu_of
from gearshift.models.doc_translation.model import ENCODERS, IGNORE, DocTranslator, layers
from gearshift.models.doc_translation.readers import dota
from gearshift.models.doc_translation.readers.page import Collection, Page
from gearshift.models.doc_translation.vocabulary import Vocabulary, load, load_or_train

SKIPPED_FILE = "left_out.json"
"""File of skipped pages and reasons in the run folder."""
PROBES = 200
"""Training pages sampled to estimate the lengths of translations."""
MAX_GAIN = 1.0
"""Maximum BLEU gain of images of other documents over blank pages."""
MULTIPLE = 8
"""Rows are padded to a multiple of this, the tile of tensor cores."""


@dataclass(frozen=True)
class _PageFacts:
    """What a prediction needs to know of training."""

    vocabulary: int
    """Entries of the embedding of the decoder."""


class DocTranslationTask(FamilyTask):
    """Translation of page images."""

    goal = Goal("val_bleu", "max")
    units = "tokens"
    noun = "documents"
    saved_files = (FACTS_FILE, TOKENIZER_FILE)
    parts: Mapping[str, Sequence[str]] = {ENCODER: ENCODERS}
    vocabulary: Vocabulary
    collection: Collection

    def __init__(
        self,
        model: Model,
        data: Data,
        context: Context,
    ) -> None:
        """Read the settings without disk access. Raises DataError for invalid sizes."""
        super().__init__(model, data, context)
        check_kernel(context.attention, context.device)
        size = SIZES[model.size]
        self.size = replace(
            size,
            decoder_layers=model.decoder_layers or size.decoder_layers,
            queries=model.queries or size.queries,
        )
        self.pretrained = None if model.pretrained is None else folder_of(model.pretrained)
        self.length = data.seq_len or size.positions
        self.beams = data.beams
        if self.length > size.positions:
            raise DataError(
                f"data.seq_len {self.length} exceeds the positions of this size",
                where="data.seq_len",
                allowed=f"at most {size.positions}",
                fix=f"--set data.seq_len={size.positions}",
            )
        self.count = min(data.max_new_tokens or self.length, self.length)
        self._reports: dict[str, Coverage] = {}

    def read(self) -> Sequence[Page]:
        data = self.data_settings
        path = local_path(data.path)
        if path in embedded.READERS:
            self.collection = embedded.READERS[path]()
        elif path.startswith("embedded:"):
            raise unknown_embedded(path, formats.EMBEDDED)
        else:
            source = existing_path(path, "; ".join((*formats.FORMATS, *formats.EMBEDDED)))
            if formats.recognize(source) is None:
                raise unknown_format(source, formats.FORMATS)
            self.collection = dota.read(source, data.target, data.split, data.on_bad)
        return self.collection.pages

    def groups_of(self, records: Sequence[Page]) -> Sequence[str]:
        return [page.document for page in records]

    def split_groups(self, groups: Iterable[str]) -> Groups:
        documents_of = self.collection.splits
        if documents_of is None:
            return super().split_groups(groups)
        self.rule.refuse_fold("a file gives the split of this data", "--set data.split=article")
        splits = {}
        for side, documents in documents_of.items():
            if not documents:
                raise DataError(
                    f"the {side} split is empty: none of its pages exists",
                    where=self.collection.source,
                    allowed="pages for train, val and test",
                    fix="--set data.split=article",
                )
            order = np.random.default_rng(self.rule.seed).permutation(documents)
            count = max(1, round(self.rule.fraction * len(documents)))
            splits[side] = sorted(order[:count].tolist())
        self.save_split(splits)
        return splits

    def fit(self, train: Numbers) -> None:
        """The vocabulary of the pretrained decoder if it has one; otherwise that of `train`."""
        rows = [{"page": page, "why": reason} for page, reason in self.collection.skipped]
        if rows:
            self.context.save(SKIPPED_FILE, json.dumps(rows, indent=1, ensure_ascii=False))

        # A pretrained decoder has embeddings for the tokens of its own vocabulary.
        path = (self.pretrained or Path()) / "decoder" / TOKENIZER_FILE
        if self.pretrained is not None and path.is_file():
            self.vocabulary = load(path)
            self.size = replace(self.size, vocabulary=-(-self.vocabulary.size // 8) * 8)
            subwords.save_tokenizer(self.vocabulary.inner, self.context)
        else:
            texts = (self.records[number].target() for number in train)
            self.vocabulary = load_or_train(texts, self.size.vocabulary, self.context)
        save_facts(_PageFacts(self.size.vocabulary), self.context)

    def setup_without_data(self) -> None:
        self.encoder = None  # the initial weights are among the trained ones
        self.pretrained = None
        folder: Any = self.context.folder
        self.size = replace(self.size, vocabulary=load_facts(folder, _PageFacts).vocabulary)
        self.vocabulary = load(folder / TOKENIZER_FILE)

    def continue_from(self, first: DocTranslationTask) -> None:
        """Loss and goal are the same for all pages."""

    def network(self) -> DocTranslator:
        """The encoders of `model.encoder` replace those of `model.pretrained`."""
        model = DocTranslator(self.size, self.model_settings.dropout)
        restrict_blocks(layers(model), self.context.attention)
        if self.pretrained is not None:
            self._reports = pretrained.load(
                model,
                self.pretrained,
                pretrained.PARTS if self.encoder is None else ["decoder"],
                self.model_settings.partial,
                self.model_settings.take_layers,
            )
        return model

    def sample(
        self,
        number: int,
        given: int,
        draws: Draws,
    ) -> dict[str, Any]:
        """`views`, uint8 [channel, height, width], tokens int64 [time], and texts of one page."""
        page = self.records[number]
        text = page.target()
        labels = self._tokens(text)[: self.length]
        return {
            "views": images.views(self.records[given].image(), self.size),
            "inputs": np.insert(labels[:-1], 0, self.vocabulary.start),
            "labels": labels,
            "reference": text,
            "meta": (page.document, page.name),
        }

    def _tokens(self, text: str) -> ndarray:
        return np.array([*self.vocabulary.encode(text), self.vocabulary.end], np.int64)

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> Batch:
        """Collate samples, padded at the end to the longest translation in multiples of 8.

        `page_global` and `page_local` as of images.batches; `decoder_ids`, `labels` int64 [batch,
        time]; `units`, the number of labels; `references`, the whole translations; `meta`, document
        and page names.
        """
        columns = columns_of(samples)
        whole, local = images.batches(columns["views"])
        labels = columns["labels"]
        return {
            "page_global": whole,
            "page_local": local,
            "decoder_ids": padded(columns["inputs"], self.vocabulary.pad, multiple=MULTIPLE),
            "labels": padded(labels, IGNORE, multiple=MULTIPLE),
            "units": sum(map(len, labels)),
            "references": columns["reference"],
            "meta": columns["meta"],
        }

    def loss(self, model: Module, batch: Batch) -> Loss:
        pages = (batch["page_global"], batch["page_local"])
        loss = model(*pages, decoder_ids=batch["decoder_ids"], labels=batch["labels"])
        return Loss(loss, {})

    def metric(self) -> TranslationMetric:
        return TranslationMetric(
            self.vocabulary,
            self.bleu(),
            self.count,
            against_blank=self.data_settings.control == "noise",
        )

    def final_metric(self) -> TranslationMetric | None:
        """Scores of translations by beam search; None for one beam."""
        if self.beams == 1:
            return None
        return TranslationMetric(self.vocabulary, self.bleu(), self.count, self.beams)

    def bleu(self) -> Bleu:
        """The BLEU of the target language."""
        return bleu_of(self.collection.language)

    def blocks(self, model: Module) -> list[Module]:
        return layers(model)

    def baselines(self, train: Iterable[Batch], held_out: Iterable[Batch]) -> Sequence[Baseline]:
        """As HasBaselines.baselines."""
        from gearshift.models.doc_translation.baselines import baselines

        pages = {page.name: page for page in self.records}
        return baselines(train, held_out, pages, self.bleu())

    preview = showing.preview
    pictures = showing.pictures
    predictions = showing.predictions
    predict = showing.predict

    def example(self) -> Sequence[Any]:
        pixels = self.size.whole.pixels
        time = round(float(np.minimum(self._token_counts(), self.length).mean()))
        return (
            torch.zeros(1, 3, pixels, pixels),
            torch.zeros(1, 3, *self.size.local.pixels),
            None,
            torch.zeros(1, time, dtype=torch.int64),
        )

    def flops_per_sample(self, model: Module) -> float | None:
        """Those of a model without values: torch counts no calls of queries, as parameters."""
        with torch.device("meta"):
            return super().flops_per_sample(DocTranslator(self.size).requires_grad_(False))

    def _token_counts(self) -> ndarray:
        """Tokens of whole translations, with the end token, of a few training pages."""
        numbers = self.data("train").numbers
        probes = numbers[spread_positions(len(numbers), PROBES)]
        return np.array([len(self._tokens(self.records[number].target())) for number in probes])

    def facts(self) -> Mapping[str, Any]:
        collection = self.collection
        facts: dict[str, Any] = {
            "source": collection.source,
            **super().facts(),
            "vocabulary": self.vocabulary.size,
            "seq_len": self.length,
            "max_new_tokens": self.count,
            "beams": self.beams,
            "cut_share": float((self._token_counts() > self.length).mean()),
            "bleu": self.bleu().signature,
            **collection.counts,
        }
        if collection.notes:
            facts["notes"] = [
                f"{file} and others: {note}" for note, file in collection.notes.items()
            ]
        if self._reports:
            facts["pretrained"] = {name: report.counts for name, report in self._reports.items()}
        if self.data_settings.control == "noise":
            facts["control"] = {"val_bleu_gain": {"max": MAX_GAIN}}
        return facts
