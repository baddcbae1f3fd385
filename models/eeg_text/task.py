"""The task of the eeg_text family: masked pre-training, and sentences from EEG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from models.common.layers import check_kernel
from models.common.masked_series import MaskedSeries
from models.common.model_facts import FACTS_FILE
from models.common.predictions import few_samples
from models.common.split import SPLITS
from models.common.subwords import TOKENIZER_FILE
from models.common.table import declared_columns
from models.eeg_text import batches, prediction, pretrained_tokenizer, preview
from models.eeg_text.batches import TextInputs
from models.eeg_text.config import SIZES, TOKEN_SAMPLES, Data, Model
from models.eeg_text.dataset import MaskedSamples, SampleRules, TextSamples, retrieval_band
from models.eeg_text.metric import MASKED, TextMetric, encode_inputs
from models.eeg_text.network import EegText, MaskedEeg, flops_per_sample
from models.eeg_text.prediction import TrainedOnEeg, recorded_channels
from models.eeg_text.pretrained import PretrainedDecoder
from models.eeg_text.pretrained_decoder import PretrainedTextDecoder, TextModel
from models.eeg_text.readers import files, tables
from models.eeg_text.recordings import ItemSplit, ReadingOptions, Recordings, split_items
from models.eeg_text.texts import (
    SentenceByteTokenizer,
    SentenceTexts,
    SentenceTokenizer,
    build_tokenizer,
)

_ENCODER = "a run folder of  --set model.stage=encoder , or a safetensors file of its model"
_START = "a run folder of  --set model.stage=text , or a safetensors file of its model"


class EegTextTask:
    """See models/base.py: Task."""

    channels_last = False
    saved_files: Sequence[str] = (
        FACTS_FILE,
        TOKENIZER_FILE,
        pretrained_tokenizer.FOLDER,
    )
    """What setup_without_data reads in the run folder: in stage encoder no tokenizer, else at most
    one: the file, or the folder of a pretrained one."""

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Read the settings; touches no file. Raises DataError for conflicting settings."""
        self.context, self.size = context, SIZES[model.size]
        self._data = data
        self.dropout, self.writes = model.dropout, model.stage == "text"
        self.path, self.control, self.on_bad = data.path, data.control, data.on_bad
        self.fraction, self.samples, self.split = data.fraction, data.seq_len, data.split
        self.most_windows = data.windows
        # Settings without effect are not read, so that they are reported as unused.
        self.reading = ReadingOptions(data.on_bad)
        if not self.path.startswith("embedded:"):
            texts = data.texts if self.writes else None
            self.reading = ReadingOptions(
                data.on_bad,
                self.samples,
                data.channels,
                texts,
                data.line_hz,
                self.writes,
                columns=declared_columns(data.columns),
            )
        self.recomputes_regions = model.recompute_regions
        if self.writes:
            self.encoder, self.start = _path(model.encoder), _path(model.start)
            self.is_frozen, self.word_dropout = model.freeze_encoder, model.word_dropout
            self.trains_top = self.is_frozen and model.unfreeze == "top"
            self.folder, self.text_len = _path(model.pretrained), data.text_len
            if self.folder is None:
                self.tokenizer_word = model.tokenizer
            self.goal, self.units = Goal("val_rouge1_gain", "max"), "tokens"
        else:
            self.encoder = self.start = None
            self.mask_share = model.mask_share
            self.goal, self.units = Goal("val_masked_r2", "max"), "values"
        if self.encoder and self.start:
            raise DataError(
                f"model.encoder '{self.encoder}' and model.start '{self.start}' are both set",
                where="model.encoder",
                allowed="one of them: the weights of model.start include an encoder",
            )
        check_kernel(context.attention, context.device)
        self.recordings: Recordings  # after setup, like the split of the items
        self.parts: ItemSplit
        self.rules: SampleRules
        self._texts: SentenceTexts | None = None
        self._tokenizer: SentenceTokenizer | None = None
        self._trained: TrainedOnEeg | None = None  # after setup_without_data
        self._pretrained: PretrainedDecoder | None = None
        self.loaded: dict[str, str] = {}
        """What initial weights were loaded, by setting."""
        self._features: Mapping[SplitName, CachedFeatures] = {}
        self._flops: float | None = None
        self._flops_cached: float | None = None

    def setup(self) -> None:
        """Find the recordings, split them and train the tokenizer; the run folder saves both.

        Reads and writes the disk: rank 0 first, then the others. Raises DataError.
        """
        recordings = files.read(self.path, self.reading)
        if self.writes:
            files.check_text(recordings)
        context = self.context
        share, seed, earlier = context.eval_share, context.seed, context.earlier_splits
        self.parts = split_items(recordings.items, self.split, self.fraction, share, seed, earlier)
        self.parts.save(context.folder, context.reset_data)
        self.recordings = recordings
        self.rules = self._sample_rules()
        if self.writes:
            by_group = {item.group: item.text or "" for item in reversed(recordings.items)}
            splits = self.parts.groups
            train = [by_group[key] for key in splits["train"]]
            self._tokenizer = self._find_tokenizer(train)
            longest = min(self.text_len, self._context() or self.text_len)
            self._texts = SentenceTexts(by_group, splits, self._tokenizer, longest, context.seed)
        self._save_facts()

    def _save_facts(self) -> None:
        path, tokenizer = self.reading.channels, self.tokenizer if self.writes else None
        TrainedOnEeg(
            self.size,
            self._text_model if self.writes else None,
            self.texts.steps if self.writes else 0,
            isinstance(tokenizer, SentenceByteTokenizer),
            recorded_channels(self.recordings),
            None if path is None else tables.load_channel_map(path),
        ).save(self.context.folder, tokenizer)

    def setup_without_data(self) -> None:
        # Their weights are among the trained ones.
        self.encoder = self.start = None
        folder = self.context.folder
        self._trained = model_facts.load(folder, TrainedOnEeg)
        assert folder is not None, "the facts were loaded from it"
        if self.writes:
            self._tokenizer = self._trained.tokenizer(folder)

    def _sample_rules(self) -> SampleRules:
        rules = SampleRules(
            self.samples, self.most_windows, self.context.seed, self.control == "noise"
        )
        used = max(item.samples for item in self.recordings.items)
        return replace(rules, windows=rules.count(used))

    def _find_tokenizer(self, texts: Sequence[str]) -> SentenceTokenizer:
        if self.folder is None:
            limit, folder = self.size.vocabulary, self.context.folder
            return build_tokenizer(self.tokenizer_word, texts, limit, folder)
        self._pretrained = PretrainedDecoder(self.folder, self.context.attention)
        return self._pretrained.tokenizer

    def _context(self) -> int | None:
        """The number of tokens that the decoder has positions for; None: any."""
        if self._pretrained is None:
            return self.size.text_context
        return self._pretrained.context

    @property
    def _text_model(self) -> TextModel | None:
        """The structure of the pretrained decoder; None: the decoder of the size."""
        if self._trained is not None:
            return self._trained.pretrained
        return self._pretrained.model if self._pretrained is not None else None

    @property
    def texts(self) -> SentenceTexts:
        """The sentences, if model.stage is text."""
        assert self._texts is not None, "setup() comes first, and model.stage is text"
        return self._texts

    @property
    def tokenizer(self) -> SentenceTokenizer:
        """The tokenizer, if model.stage is text."""
        assert self._tokenizer is not None, "setup comes first, and model.stage is text"
        return self._tokenizer

    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator.

        `model.encoder` provides the weights of the encoder, `model.pretrained` those of the text
        decoder, `model.start` those of the whole model.
        Raises DataError.
        """
        kernel = self.context.attention
        tokens = self.samples // TOKEN_SAMPLES
        if not self.writes:
            masked = MaskedEeg(self.size, self.samples, self.dropout, kernel)
            if self.recomputes_regions:
                masked.encoder.recompute_regions()
            self._flops = flops_per_sample(masked, tokens, 0)
            return masked
        pad, structure = self.tokenizer.pad, self._text_model
        model = EegText(self.size, self.samples, pad, self.dropout, kernel, structure)
        if self.recomputes_regions:
            model.encoder.recompute_regions()
        if self.start is not None:
            self.loaded["start"] = initial_weights.load("model.start", model, self.start, _START)
        else:
            if self._pretrained is not None:
                assert isinstance(model.decoder, PretrainedTextDecoder)
                self.loaded["pretrained"] = self._pretrained.load(model.decoder)
            if self.encoder is not None:
                self.loaded["encoder"] = initial_weights.load(
                    "model.encoder", model, self.encoder, _ENCODER, ("encoder.",)
                )
        if self.is_frozen:
            model.freeze_encoder(self.trains_top)
        if self._texts is not None:  # otherwise there is no data
            counts = [self.rules.count(item.samples) for item in self.recordings.items]
            length, windows = self._texts.mean_length, sum(counts) / len(counts)
            self._flops = flops_per_sample(model, tokens, length, windows=windows)
            self._flops_cached = flops_per_sample(model, tokens, length, is_cached=True)
        return model

    def data(self, split: SplitName) -> TextSamples | MaskedSamples:
        rules, is_training = self.rules, split == "train"
        numbers = self.parts.numbers[split]
        if not self.writes:
            return MaskedSamples(self.recordings, numbers, rules, self.mask_share, is_training)
        dropout = self.word_dropout if is_training else 0.0
        samples = TextSamples(self.recordings, numbers, rules, self.texts, dropout)
        samples.features = self._features.get(split)
        return samples

    def frozen_encoder(self, model: Module) -> str | None:
        return "encoder" if self.writes and self.is_frozen and not self.trains_top else None

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
        self._flops = self._flops_cached

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
        nats = F.cross_entropy(
            logits.flatten(0, 1), targets, ignore_index=batches.IGNORE, reduction="sum"
        )
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
        return preview.render_preview(model, self._few("val"), self.texts, self.context.device)

    def predictions(self, model: Module) -> Predictions:
        """The sentences, or the masked EEG, predicted for a few validation samples. Collective."""
        samples, device = self.data("val"), self.context.device
        if isinstance(samples, TextSamples):
            return preview.text_predictions(model, samples, self._few("val"), device)
        return preview.masked_predictions(model, samples, self.samples, device)

    def predict(self, model: Module, path: Path) -> Iterator[Prediction]:
        trained = self._trained
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
        if not self.writes:
            encoder = prediction.FeatureWriter(model, rules, self.context.device)
            return prediction.predict(encoder, trained, path, reading)
        steps, device = trained.steps, self.context.device
        writer = prediction.SentenceWriter(model, self.tokenizer, steps, rules, device)
        return prediction.predict(writer, trained, path, reading)

    def _few(self, split: SplitName) -> Batch:
        return self.collate(few_samples(self.data(split), preview.SHOWN))

    def flops_per_sample(self, model: Module) -> float | None:
        return self._flops  # computed in build(): an engine may have sharded the weights since

    def pictures(self) -> Sequence[Picture]:
        samples = self.data("train")
        numbers = sorted({0, len(samples) // 2, len(samples) - 1})
        pictures = []
        for index in numbers:
            item = samples.item(index)
            title = item.text or item.group
            caption = f"{item.where}, reader {item.subject}: {title}"
            name, eeg = f"eeg-{index}", samples.given(index)
            pictures.append(preview.draw_eeg(name, eeg, title, caption))
        return pictures

    def facts(self) -> Mapping[str, Any]:
        facts = DataFacts(self.recordings, self.parts, self.rules, self._texts, self.control)
        return facts.facts() | self.loaded | ({"feature_cache": "kept"} if self._features else {})


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser()


_LARGEST_R2 = 0.02


@dataclass(frozen=True)
class DataFacts:
    """Facts of the data for the user."""

    recordings: Recordings
    parts: ItemSplit
    rules: SampleRules
    texts: SentenceTexts | None
    control: str

    def facts(self) -> dict[str, Any]:
        items = self.recordings.items
        times = [item.samples for item in items]
        share = sum(min(time, self.rules.most) for time in times) / sum(times)
        facts: dict[str, Any] = {
            "source": self.recordings.name,
            "format": self.recordings.form,
            "unit": self.recordings.unit,
            "groups": {name: len(self.parts.groups[name]) for name in SPLITS},
            "samples": {name: self._samples(self.parts.numbers[name]) for name in SPLITS},
            "readers": len({item.subject for item in items}),
            "time_kept": round(share, 4),
            **{name: count for name, count in self.recordings.left_out.items() if count},
            **self.recordings.notes,
        }
        if self.rules.windows > 1:
            facts["windows"] = f"up to {self.rules.windows} per segment"
        if self.texts is not None:
            facts["tokenizer"] = self.texts.tokenizer.name
            facts["candidates"] = self.texts.candidate_count
            facts |= {"texts_cut": self.texts.cut} if self.texts.cut else {}
        if self.control == "noise":
            facts["control"] = self._control()
        return facts

    def _samples(self, numbers: Sequence[int]) -> int:
        """Segments; without text their windows, each of which is a sample."""
        if self.texts is not None:
            return len(numbers)
        return sum(self.rules.count(self.recordings.items[n].samples) for n in numbers)

    def _control(self) -> dict[str, dict[str, float]]:
        """For each metric, the bounds outside which the noise control reports a leak."""
        if self.texts is None:
            return {"val_masked_r2": {"max": _LARGEST_R2, "chance": 0.0}}
        sentences = len(self.parts.groups["val"])
        return {
            "val_retrieval": retrieval_band(self.texts.candidate_count, sentences),
            # The worse of two comparisons counts: a gain by chance is below 0, not above.
            "val_rouge1_gain_in_se": {"min": -3.0, "max": 2.0, "chance": 0.0},
        }
