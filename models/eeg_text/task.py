"""The eeg_text family: EEG during reading in, the sentence that was read out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module
from torch.nn import functional as F

from models.base import Batch, Context, Goal, Loss, Picture, SplitName
from models.common.kernels import check
from models.eeg_text import batches, corpus, pictures, preview
from models.eeg_text.config import SIZES, TOKEN_SAMPLES, Data, Model
from models.eeg_text.dataset import Fixed, MaskedSamples, Rules, TextSamples
from models.eeg_text.facts import Seen
from models.eeg_text.network import flops, weights
from models.eeg_text.network.model import EegText, MaskedEeg
from models.eeg_text.recordings import Reading, Recordings
from models.eeg_text.scoring.masked_metric import MaskedMetric, told
from models.eeg_text.scoring.text_metric import TextMetric
from models.eeg_text.splits import Parts, divide
from models.eeg_text.texts import Texts
from models.eeg_text.tokenizer import Tokenizer, fit

SHOWN = 3
"""Sentences of a preview, and pictures."""


class EegTextTask:
    """See models/base.py: Task."""

    channels_last = False

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Reads the settings; touches no file. Raises DataError for a kernel there is not."""
        self.context, self.size = context, SIZES[model.size]
        self.dropout, self.writes = model.dropout, model.stage == "text"
        self.path, self.control, self.on_bad = data.path, data.control, data.on_bad
        self.fraction, self.samples, self.split = data.fraction, data.seq_len, data.split
        # A setting is read only where it means something: what nobody read is told to the person.
        self.reading = Reading(data.on_bad)
        if not self.path.startswith("embedded:"):
            texts = data.texts if self.writes else None
            self.reading = Reading(data.on_bad, self.samples, data.channels, texts, data.line_hz)
        self.encoder: Path | None = None
        if self.writes:
            self.encoder = None if model.encoder is None else Path(model.encoder).expanduser()
            self.is_frozen, self.word_dropout = model.freeze_encoder, model.word_dropout
            self.tokenizer_word = model.tokenizer
            self.text_len = min(data.text_len, self.size.text_context)
            self.goal, self.units = Goal("val_rouge1_gain", "max"), "tokens"
        else:
            self.mask_share = model.mask_share
            self.goal, self.units = Goal("val_masked_r2", "max"), "values"
        check(context.attention, context.device)
        self._recordings: Recordings | None = None
        self._parts: Parts | None = None
        self._texts: Texts | None = None
        self.loaded: str | None = None
        self._flops: float | None = None

    def setup(self) -> None:
        """Find the recordings, split them, fit the tokenizer; the run folder keeps both.

        Reads and writes the disk: rank 0 first, then the others. Raises DataError.
        """
        recordings = corpus.read(self.path, self.reading)
        if self.writes:
            corpus.check_text(recordings)
        context = self.context
        self._parts = divide(
            recordings.items, self.split, self.fraction, context.eval_share, context.seed
        )
        self._parts.keep(context.folder, context.data_anew)
        self._recordings = recordings
        if self.writes:
            by_group = {item.group: item.text or "" for item in reversed(recordings.items)}
            splits = self._parts.groups
            train = [by_group[key] for key in splits["train"]]
            tokenizer = fit(self.tokenizer_word, train, self.size.vocabulary, context.folder)
            self._texts = Texts(by_group, splits, tokenizer, self.text_len, context.seed)

    @property
    def recordings(self) -> Recordings:
        """What setup found."""
        assert self._recordings is not None, "setup() comes first"
        return self._recordings

    @property
    def parts(self) -> Parts:
        """Which items train, validate and test."""
        assert self._parts is not None, "setup() comes first"
        return self._parts

    @property
    def texts(self) -> Texts:
        """The sentences, where there is text."""
        assert self._texts is not None, "setup() comes first, and model.stage is text"
        return self._texts

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, where there is text."""
        return self.texts.tokenizer

    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator.

        With `model.encoder` the encoder's are read from there. Raises DataError.
        """
        kernel = self.context.attention
        if not self.writes:
            masked = MaskedEeg(self.size, self.samples, self.dropout, kernel)
            self._flops = flops.per_sample(masked, self.samples // TOKEN_SAMPLES, 0)
            return masked
        pad = self.tokenizer.pad
        model = EegText(self.size, self.samples, pad, self.dropout, kernel)
        self._flops = flops.per_sample(model, self.samples // TOKEN_SAMPLES, self.texts.mean_length)
        if self.encoder is not None:
            file = weights.find(self.encoder)
            count = weights.load(model.encoder, file)
            self.loaded = f"loaded {count}/{count} tensors from {file}"
        if self.is_frozen:
            model.freeze_encoder()
        return model

    def data(self, split: SplitName) -> TextSamples | MaskedSamples:
        """The samples of a split."""
        rules = Rules(self.samples, self.context.seed, self.control == "noise")
        numbers, learns = self.parts.numbers[split], split == "train"
        if not self.writes:
            return MaskedSamples(self.recordings, numbers, rules, self.mask_share, learns)
        dropout = self.word_dropout if learns else 0.0
        return TextSamples(self.recordings, numbers, rules, self.texts, dropout)

    def collate(self, samples: Sequence[Any]) -> Batch:
        """See batches.text and batches.masked."""
        if self.writes:
            return batches.text(samples, self.samples, self.tokenizer.pad)
        return batches.masked(samples, self.samples)

    def weight(self, batch: Batch) -> int:
        """Tokens to write, or values to tell."""
        return int(batch["units"])

    def loss(self, model: Module, batch: Batch) -> Loss:
        """Cross-entropy in nats, summed over tokens; or squared errors, summed over values."""
        if not self.writes:
            seen = batch.get("seen", batch["eeg"])
            valid = batch.get("seen_mask", batch["eeg_mask"])
            guess = model(seen, valid, batch["mask_target"]).float()
            return Loss(((guess - batch["eeg"]).square() * told(batch)).sum(), {})
        logits = model(batch["eeg"], batch["eeg_mask"], batch["text_ids"]).float()
        targets = batch["labels"].flatten()
        nats = F.cross_entropy(
            logits.flatten(0, 1), targets, ignore_index=batches.IGNORE, reduction="sum"
        )
        return Loss(nats, {})

    def metric(self) -> TextMetric | MaskedMetric:
        """See text_metric.py and masked_metric.py."""
        return TextMetric(self.texts) if self.writes else MaskedMetric()

    def blocks(self, model: Module) -> list[Module]:
        """The transformer layers of regions, of the whole head, and of the text decoder."""
        assert isinstance(model, EegText | MaskedEeg)
        return model.blocks()

    def preview(self, model: Module) -> str | None:
        """What is written of the first validation recordings. Collective."""
        if not self.writes:
            return None
        return preview.show(model, self._first("val"), self.texts, self.context.device)

    def _first(self, split: SplitName) -> Batch:
        samples = self.data(split)
        count = min(SHOWN, len(samples))
        places = torch.linspace(0, len(samples) - 1, count).long().tolist()
        return self.collate([samples.sample(i, Fixed()) for i in places])

    def flops_per_sample(self, model: Module) -> float | None:
        """See flops.per_sample."""
        return self._flops  # kept from build(): an engine may have cut the weights since

    def pictures(self) -> Sequence[Picture]:
        """A few training recordings with their sentence."""
        samples = self.data("train")
        numbers = sorted({0, len(samples) // 2, len(samples) - 1})
        return [self._picture(samples, index) for index in numbers]

    def _picture(self, samples: TextSamples | MaskedSamples, index: int) -> Picture:
        item = self.recordings.items[samples.numbers[index]]
        title = item.text or item.group
        caption = f"{item.where}, reader {item.subject}: {title}"
        return pictures.draw(f"eeg-{index}", samples.given(index), title, caption)

    def facts(self) -> Mapping[str, Any]:
        """See facts.py; and what was taken over of another run's encoder."""
        seen = Seen(self.recordings, self.parts, self.samples, self._texts, self.control)
        return seen.facts() | ({} if self.loaded is None else {"encoder": self.loaded})
