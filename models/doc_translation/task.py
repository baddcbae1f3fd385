"""The doc_translation family: a page image in, its translation as Markdown out."""

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
from models.common.split import atomic_write, save_split, split_groups
from models.common.subwords import TOKENIZER_FILE
from models.doc_translation import pretrained, preview
from models.doc_translation.config import SIZES, Data, Model, Size
from models.doc_translation.dataset import SPLITS, Pages, Sample, Wanted, collate, read
from models.doc_translation.metric import Bleu, TranslationMetric
from models.doc_translation.model import DocTranslator, flops_per_sample, layers
from models.doc_translation.noise_control import MOST_GAIN, strangers
from models.doc_translation.readers.page import Collection, Page
from models.doc_translation.readers.pairs import Layout
from models.doc_translation.vocabulary import Vocabulary, load, load_or_train

GROUPS = "documents"
LEFT_OUT = "left_out.json"
"""Pages that were left out, and why, in the run folder."""

PROBES = 200
"""Training pages by which the lengths of all translations are judged."""


class DocTranslationTask:
    """See models/base.py: Task."""

    goal = Goal("val_bleu", "max")
    units = "tokens"
    channels_last = False

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Reads the settings; touches no file. Raises DataError for sizes that cannot be."""
        attention_kernels.check_kernel(context.attention, context.device)
        self.context = context
        self.size = _sized(SIZES[model.size], model)
        self.dropout = model.dropout
        self.pretrained = None if model.pretrained is None else Path(model.pretrained).expanduser()
        if self.pretrained is not None:
            self.partial, self.take_layers = model.partial, model.take_layers
        self.path, self.control, self.fraction = data.path, data.control, data.fraction
        self.wanted = Wanted(
            Layout(data.source, data.target, data.paragraphs, data.font), data.split, data.on_bad
        )
        self.length = data.seq_len or self.size.positions
        if self.length > self.size.positions:
            raise DataError(
                f"data.seq_len {self.length} is longer than the decoder of this size can write",
                where="data.seq_len",
                allowed=f"at most {self.size.positions}",
                fix=f"--set data.seq_len={self.size.positions}",
            )
        self.count = min(data.max_new_tokens or self.length, self.length)
        self._collection: Collection | None = None
        self._vocabulary: Vocabulary | None = None
        self._pages: dict[SplitName, Pages] = {}
        self._reports: dict[str, pretrained.Report] = {}

    def setup(self) -> None:
        """Read the data, split it, fit or load the vocabulary; the run folder keeps all three.

        Reads and writes the disk: rank 0 first, then the others. Raises DataError.
        """
        collection = read(self.path, self.wanted)
        self.splits = self._split(collection)
        folder = self.context.folder
        if folder is not None:
            save_split(self.splits, folder, self.context.reset_data)
            _keep_left_out(collection.left_out, folder)
        by_split = {name: _of(collection.pages, set(self.splits[name])) for name in SPLITS}
        self._vocabulary = self._fit_vocabulary(by_split["train"])
        for number, name in enumerate(SPLITS):
            pages, shown = by_split[name], None
            if self.control == "noise":
                shown = strangers([p.document for p in pages], self.context.seed + number)
            self._pages[name] = Pages(pages, self._vocabulary, self.size, self.length, shown)
        self._collection = collection

    def _split(self, collection: Collection) -> dict[SplitName, list[str]]:
        seed, given = self.context.seed, collection.given
        if given is None:
            groups = (page.document for page in collection.pages)
            share, earlier = self.context.eval_share, self.context.earlier_splits
            return split_groups(groups, self.fraction, share, seed, GROUPS, earlier)
        return {
            side: _part(given[side], self.fraction, seed, side, collection.source)
            for side in SPLITS
        }

    def _fit_vocabulary(self, pages: Sequence[Page]) -> Vocabulary:
        """That of the pretrained decoder, where it brings one along."""
        if self.pretrained is not None:
            path = self.pretrained / "decoder" / TOKENIZER_FILE
            if path.is_file():
                found = load(path)
                self.size = replace(self.size, vocabulary=-(-found.size // 8) * 8)
                return found
        texts: Iterator[str] = (page.target() for page in pages)
        return load_or_train(texts, self.size.vocabulary, self.context.folder)

    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator, or loaded."""
        model = DocTranslator(self.size, self.dropout, self.context.attention)
        if self.pretrained is not None:
            self._reports = pretrained.load(model, self.pretrained, self.partial, self.take_layers)
        return model

    def data(self, split: SplitName) -> Pages:
        """The pages of a split."""
        return self._pages[split]

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """See dataset.collate."""
        return collate(samples, self.vocabulary.pad)

    @property
    def vocabulary(self) -> Vocabulary:
        """What setup fitted or loaded."""
        assert self._vocabulary is not None, "setup() comes first"
        return self._vocabulary

    def num_units(self, batch: Batch) -> int:
        """Labels in `batch`."""
        return batch["units"]

    def loss(self, model: Module, batch: Batch) -> Loss:
        """Cross-entropy in nats, summed over labels."""
        names = ("page_global", "page_local", "decoder_ids", "labels")
        return Loss(model(**{name: batch[name] for name in names}), {})

    def metric(self) -> TranslationMetric:
        """See models/doc_translation/metric.py."""
        assert self._collection is not None, "setup() comes first"
        is_noise = self.control == "noise"
        return TranslationMetric(
            self.vocabulary, self._collection.tokenize, self.count, against_blank=is_noise
        )

    def blocks(self, model: Module) -> list[Module]:
        """The layers of encoders, query transformers and decoder."""
        return layers(model)

    def preview(self, model: Module) -> str | None:
        """What the model writes for the first validation page. Collective."""
        return preview.show(model, self.data("val"), self.count, self.context.device)

    def pictures(self) -> Sequence[Picture]:
        """A few training pages, each beside its translation."""
        return preview.pictures(self.data("train"), self.wanted.layout.font)

    def predictions(self, model: Module) -> Predictions:
        """See preview.predict. Collective."""
        assert self._collection is not None, "setup() comes first"
        bleu, font = Bleu(self._collection.tokenize), self.wanted.layout.font
        device = self.context.device
        return preview.predict(model, self.data("val"), self.count, bleu, font, device)

    def flops_per_sample(self, model: Module) -> float | None:
        """See flops_per_sample; of a page with the mean number of tokens."""
        counts = np.minimum(self._token_counts(), self.length)
        return flops_per_sample(self.size, round(float(counts.mean())))

    def _token_counts(self) -> np.ndarray:
        """Of a few translations, at even distances over the training pages."""
        pages = self.data("train")
        probes = sorted({int(i) for i in np.linspace(0, len(pages) - 1, PROBES)})
        return np.array([pages.count_tokens(i) for i in probes])

    def facts(self) -> Mapping[str, Any]:
        """What a person should know: counts, splits, what was left out, how BLEU is computed."""
        assert self._collection is not None, "setup() comes first"
        facts: dict[str, Any] = {
            "source": self._collection.source,
            "groups": {name: len(self.splits[name]) for name in SPLITS},
            "samples": {name: len(self.data(name)) for name in SPLITS},
            "vocabulary": self.vocabulary.size,
            "seq_len": self.length,
            "max_new_tokens": self.count,
            "cut_share": float((self._token_counts() > self.length).mean()),
            "bleu": Bleu(self._collection.tokenize).signature,
            **self._collection.counts,
        }
        if self._reports:
            facts["pretrained"] = {name: r.counts() for name, r in self._reports.items()}
        if self.control == "noise":
            facts["control"] = {"val_bleu_gain": {"max": MOST_GAIN}}
        return facts


def _sized(size: Size, model: Model) -> Size:
    return replace(
        size,
        decoder_layers=model.decoder_layers or size.decoder_layers,
        queries=model.queries or size.queries,
    )


def _of(pages: Sequence[Page], documents: set[str]) -> list[Page]:
    return [page for page in pages if page.document in documents]


def _part(
    documents: Sequence[str], fraction: float, seed: int, side: SplitName, source: str
) -> list[str]:
    """A `fraction` of the documents that the data gives to a side. Raises DataError if empty."""
    if not documents:
        raise DataError(
            f"{side} would be empty: no page of its list is there",
            where=source,
            allowed="pages for train, val and test",
            fix="--set data.split=article",
        )
    order = np.random.default_rng(seed).permutation(len(documents))
    return sorted(documents[i] for i in order[: max(1, round(fraction * len(documents)))])


def _keep_left_out(left_out: Sequence[tuple[str, str]], folder: Path) -> None:
    """Write what was left out into the run folder, once."""
    if left_out and not (folder / LEFT_OUT).exists():
        rows = [{"page": page, "why": why} for page, why in left_out]
        atomic_write(folder / LEFT_OUT, json.dumps(rows, indent=1, ensure_ascii=False))
