"""The task of the eeg_text family: masked pre-training, and sentences from EEG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from models.base import (
    Batch,
    CachedFeatures,
    Context,
    DataError,
    Goal,
    Loss,
    Picture,
    Prediction,
    Predictions,
    SplitName,
)
from models.common import initial_weights, model_facts
from models.common.hub import folder_of
from models.common.layers import check_kernel, count_flops
from models.common.masked_series import MaskedSeries, check_share
from models.common.predictions import few_samples
from models.common.split import SPLITS, SplitRule
from models.common.subwords import TOKENIZER_FILE
from models.common.table import declared_columns
from models.eeg_text import batches, prediction, pretrained, preview
from models.eeg_text.batches import TextInputs
from models.eeg_text.config import CHANNELS, SIZES, TOKEN_SAMPLES, Data, Model
from models.eeg_text.dataset import (
    SHORTEST,
    MaskedSamples,
    SampleRules,
    SegmentSamples,
    TextSamples,
    retrieval_band,
)
from models.eeg_text.metric import MASKED, TextMetric, encode_inputs
from models.eeg_text.montage import INDICES, SLOTS
from models.eeg_text.network import EegText, MaskedEeg
from models.eeg_text.prediction import TrainedOnEeg
from models.eeg_text.readers import files, tables
from models.eeg_text.recordings import ItemSplit, ReadingOptions, Recordings, split_items
from models.eeg_text.texts import SentenceByteTokenizer, SentenceTexts, SentenceTokenizer, build_tokenizer

if TYPE_CHECKING:
    from models.common.nf4 import Quantizer

_ENCODER = "a run folder of  --set model.stage=encoder , or a safetensors file of its model"
_START = "a run folder of  --set model.stage=text , or a safetensors file of its model"
_LARGEST_R2 = 0.02
"""Of a noise control."""


class EegTextTask:
    """See models/base.py: Task."""

    channels_last = False
    saved_files: Sequence[str] = (model_facts.FACTS_FILE, TOKENIZER_FILE)
    """What setup_without_data reads in the run folder: in stage encoder no tokenizer."""
    recordings: Recordings  # these after setup; in stage encoder without texts and tokenizer
    parts: ItemSplit
    rules: SampleRules
    texts: SentenceTexts
    tokenizer: SentenceTokenizer

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Read the settings; touches no file. Raises DataError for conflicting settings."""
        self.context, self.size = context, SIZES[model.size]
        self._data = data
        self.dropout, self.writes = model.dropout, model.stage == "text"
        self.path, self.control, self.on_bad = data.path, data.control, data.on_bad
        self.rule = SplitRule.of(data, context)
        self.samples, self.split = data.seq_len, data.split
        self.most_windows = data.windows
        # Settings without effect are not read, so that they are reported as unused.
        self.reading = ReadingOptions(data.on_bad)
        if not self.path.startswith("embedded:"):
            texts, columns = data.texts if self.writes else None, declared_columns(data.columns)
            options = (self.samples, data.channels, texts, data.line_hz, self.writes)
            self.reading = ReadingOptions(data.on_bad, *options, columns=columns, unit=data.unit)
        self.recomputes_regions = model.recompute_regions
        self.encoder = self.start = self.folder = None
        self.is_frozen = self.trains_top = False
        self.quantizer: Quantizer | None = None
        if self.writes:
            self.encoder, self.start = _path(model.encoder), _path(model.start)
            self.is_frozen, self.word_dropout = model.freeze_encoder, model.word_dropout
            self.trains_top = self.is_frozen and model.unfreeze == "top"
            if self.is_frozen and model.quantize is not None:
                from models.common.nf4 import Quantizer

                self.quantizer = Quantizer(context.device)
            self.text_len = data.text_len
            self.folder = None if model.pretrained is None else folder_of(model.pretrained)
            if self.folder is None:
                self.tokenizer_word = model.tokenizer
            self.goal, self.units = Goal("val_rouge1_gain", "max"), "tokens"
        else:
            self.mask_share = model.mask_share
            self.goal, self.units = Goal("val_masked_r2", "max"), "values"
        if self.encoder and self.start:
            raise DataError(
                f"model.encoder '{self.encoder}' and model.start '{self.start}' are both set",
                where="model.encoder",
                allowed="one of them: the weights of model.start include an encoder",
            )
        check_kernel(context.attention, context.device)
        self._trained: TrainedOnEeg | None = None  # after setup_without_data
        self.loaded: dict[str, str] = {}
        """What initial weights were loaded, by setting."""
        self._features: Mapping[SplitName, CachedFeatures] = {}

    def setup(self) -> None:
        """Find the recordings, split them and train the tokenizer; the run folder saves both.

        Reads and writes the disk: rank 0 first, then the others. Raises DataError.
        """
        context = self.context
        recordings = files.read(self.path, self.reading)
        if self.writes:
            files.check_text(recordings)
        self.parts = split_items(recordings.items, self.split, self.rule)
        if context.folder is not None:
            self.parts.save(context.folder, context.reset_data, self.rule)
        self.recordings = recordings
        is_noise = self.control == "noise"
        rules = SampleRules(self.samples, self.most_windows, self.rule.seed, is_noise)
        used = max(item.samples for item in recordings.items)
        self.rules = replace(rules, windows=rules.count(used))
        if not self.writes:
            check_share(self.mask_share, -(-min(used, self.samples) // TOKEN_SAMPLES), SHORTEST)
        if self.writes:
            by_group = {item.group: item.text or "" for item in reversed(recordings.items)}
            self._read_texts(by_group)
        channel_map = self.reading.channels
        TrainedOnEeg(
            self.size,
            self.folder is not None,
            self.texts.steps if self.writes else 0,
            self.writes and isinstance(self.tokenizer, SentenceByteTokenizer),
            tuple(SLOTS[channel] for channel in recordings.channels),
            None if channel_map is None else tables.load_channel_map(channel_map),
        ).save(context.folder, self.tokenizer if self.writes else None)

    def _read_texts(self, by_group: Mapping[str, str]) -> None:
        splits = self.parts.groups
        if self.folder is not None:
            self.size = pretrained.size_of(self.folder, self.size)
            self.tokenizer = pretrained.tokenizer_of(self.folder, self.size)
        else:
            train, folder = [by_group[key] for key in splits["train"]], self.context.folder
            name, limit = self.tokenizer_word, self.size.vocabulary
            self.tokenizer = build_tokenizer(name, train, limit, folder)
        longest = min(self.text_len, self.size.text_context)
        self.texts = SentenceTexts(by_group, splits, self.tokenizer, longest, self.rule.seed)

    def setup_without_data(self) -> None:
        # Their weights are among the trained ones.
        self.encoder = self.start = self.quantizer = None
        folder = self.context.folder
        self._trained = model_facts.load(folder, TrainedOnEeg)
        self.size = self._trained.size
        assert folder is not None, "the facts were loaded from it"
        if self.writes:
            self.tokenizer = self._trained.tokenizer(folder)

    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator.

        `model.encoder` provides the weights of the encoder, `model.pretrained` those of the text
        decoder, `model.start` those of the whole model.
        Raises DataError.
        """
        kernel = self.context.attention
        if not self.writes:
            masked = MaskedEeg(self.size, self.samples, self.dropout, kernel)
            if self.recomputes_regions:
                masked.encoder.recompute_regions()
            return masked
        pad, has_folder = self.tokenizer.pad, self.folder is not None
        model = EegText(self.size, self.samples, pad, self.dropout, kernel, has_folder)
        if self.recomputes_regions:
            model.encoder.recompute_regions()
        load = initial_weights.load
        if self.start is not None:
            self.loaded["start"] = load("model.start", model, self.start, _START)
        else:
            if self.folder is not None and self._trained is None:
                self.loaded["pretrained"] = pretrained.load(model.decoder, self.folder)
            if self.encoder is not None:
                path, parts = self.encoder, ("encoder.",)
                self.loaded["encoder"] = load("model.encoder", model, path, _ENCODER, parts)
        if self.is_frozen:
            model.freeze_encoder(self.trains_top)
        if self.quantizer is not None:
            self.quantizer.quantize_frozen(model)
        return model

    def data(self, split: SplitName) -> TextSamples | MaskedSamples:
        items, numbers, is_training = (self.recordings.items, self.parts.numbers[split], split == "train")
        if not self.writes:
            segments = SegmentSamples(items, numbers, self.rules)
            return MaskedSamples(segments, self.mask_share, is_training)
        dropout, features = self.word_dropout if is_training else 0.0, self._features.get(split)
        return TextSamples(items, numbers, self.rules, self.texts, dropout, features)

    def frozen_encoder(self, model: Module) -> str | None:
        return "encoder" if self.is_frozen and not self.trains_top else None

    def varying_inputs(self) -> str | None:
        """None: words are dropped after the encoder. See models/base.py: HasFrozenEncoder."""
        return None

    def encoder_inputs(self, split: SplitName) -> TextInputs:
        """EEG of a split; in evaluation also noise."""
        samples = self.data(split)
        assert isinstance(samples, TextSamples)
        return TextInputs(samples, self.path, self.control)

    def encode(self, model: Module, batch: Batch) -> dict[str, Tensor]:
        """memory [input, time / 4, width], and samples [input], the number of valid samples."""
        memory, valid = encode_inputs(model, batch, ["eeg"])
        return {"memory": memory, "samples": valid.sum(1)}

    def use_features(self, features: Mapping[SplitName, CachedFeatures]) -> None:
        self._features = features

    def collate(self, samples: Sequence[Any]) -> Batch:
        if self.writes:
            return batches.text(samples, self.rules, self.tokenizer.pad)
        return batches.masked(samples, self.samples)

    def num_units(self, batch: Batch) -> int:
        return int(batch["units"])

    def loss(self, model: Module, batch: Batch) -> Loss:
        if not self.writes:
            return MASKED.loss(model, batch)
        eeg, memory = batch.get("eeg"), batch.get("eeg_memory")
        valid, pool = batch.get("eeg_windows", batch["eeg_mask"]), batch.get("eeg_pool")
        logits = model(eeg, valid, batch["text_ids"], memory=memory, pool=pool).float()
        targets = batch["labels"].flatten()
        nats = F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=batches.IGNORE, reduction="sum")
        return Loss(nats, {})

    def metric(self) -> TextMetric | MaskedSeries:
        return TextMetric(self.texts) if self.writes else MASKED

    def blocks(self, model: Module) -> list[Module]:
        assert isinstance(model, EegText | MaskedEeg)
        return model.blocks()

    def preview(self, model: Module) -> str | None:
        """The sentences generated for a few validation samples. Collective."""
        if not self.writes:
            return None
        batch = self.collate(few_samples(self.data("val"), preview.SHOWN))
        return preview.render_preview(model, batch, self.texts, self.context.device)

    def predictions(self, model: Module) -> Predictions:
        """The sentences, or the masked EEG, predicted for a few validation samples. Collective."""
        samples, device = self.data("val"), self.context.device
        batch = self.collate(few_samples(samples, preview.SHOWN))
        if isinstance(samples, TextSamples):
            return preview.text_predictions(model, samples, batch, device)
        return preview.masked_predictions(model, samples, batch, device)

    def predict(self, model: Module, path: Path) -> Iterator[Prediction]:
        trained, device = self._trained, self.context.device
        assert trained is not None, "setup_without_data comes first"
        rules = SampleRules(self.samples, self.most_windows, self.context.seed, is_noise=False)
        reading = ReadingOptions(
            self.on_bad,
            self.samples,
            line_hz=self._data.line_hz,
            to_predict=True,
            channel_map=trained.channel_map,
            columns=self.reading.columns,
        )
        tokenizer = self.tokenizer if self.writes else None
        return prediction.predict(model, trained, path, reading, rules, tokenizer, device)

    def flops_per_sample(self, model: Module) -> float | None:
        """As counted by torch for a sample of mean length; None: layers in 4 bits. Collective."""
        if self.quantizer is not None:
            return None
        samples, tokens = self.samples, self.samples // TOKEN_SAMPLES
        eeg, valid = torch.zeros(1, samples, CHANNELS), torch.ones(1, samples, dtype=torch.bool)
        if not self.writes:
            return count_flops(model, (eeg, valid, torch.zeros(1, tokens, dtype=torch.bool)), ())
        ids = torch.zeros(1, round(self.texts.mean_length), dtype=torch.int64)
        if self._features:
            return count_flops(model, (None, valid, ids, torch.zeros(1, tokens, self.size.width)), ())
        counts = [self.rules.count(item.samples) for item in self.recordings.items]
        windows = round(sum(counts) / len(counts))
        pool = torch.arange(windows * tokens).view(windows, tokens).T[None]
        regions = [f"encoder.regions.{name}" for name in INDICES]
        frozen = (regions if self.trains_top else ["encoder"]) if self.is_frozen else []
        given = eeg.expand(windows, -1, -1), valid.expand(windows, -1), ids, None, pool
        return count_flops(model, given, frozen)

    def pictures(self) -> Sequence[Picture]:
        samples, pictures = self.data("train"), []
        for index in sorted({0, len(samples) // 2, len(samples) - 1}):
            item = samples.item(index)
            title = item.text or item.group
            caption = f"{item.where}, reader {item.subject}: {title}"
            name, eeg = f"eeg-{index}", samples.given(index)
            pictures.append(preview.draw_eeg(name, eeg, title, caption))
        return pictures

    def facts(self) -> Mapping[str, Any]:
        recordings, parts, rules = self.recordings, self.parts, self.rules
        items, times = recordings.items, [item.samples for item in recordings.items]
        share = sum(min(time, rules.most) for time in times) / sum(times)
        # Without text each window is a sample.
        counts = [1 if self.writes else rules.count(time) for time in times]
        facts: dict[str, Any] = {
            "source": recordings.name,
            "format": recordings.form,
            "unit": recordings.unit,
            "groups": {name: len(parts.groups[name]) for name in SPLITS},
            "samples": {name: sum(counts[n] for n in parts.numbers[name]) for name in SPLITS},
            "readers": len({item.subject for item in items}),
            "time_kept": round(share, 4),
            **{name: count for name, count in recordings.left_out.items() if count},
            **recordings.notes,
        }
        if rules.windows > 1:
            facts["windows"] = f"up to {rules.windows} per segment"
        control: dict[str, dict[str, float]] = {"val_masked_r2": {"max": _LARGEST_R2, "chance": 0.0}}
        if self.writes:
            facts |= {"tokenizer": self.tokenizer.name, "candidates": self.texts.candidate_count}
            facts |= {"texts_cut": self.texts.cut} if self.texts.cut else {}
            sentences = len(parts.groups["val"])
            control = {
                "val_retrieval": retrieval_band(self.texts.candidate_count, sentences),
                # The worse of two comparisons counts: a gain by chance is below 0, not above.
                "val_rouge1_gain_in_se": {"min": -3.0, "max": 2.0, "chance": 0.0},
            }
        if self.control == "noise":
            facts["control"] = control
        return facts | self.loaded | ({"feature_cache": "kept"} if self._features else {})


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser()
