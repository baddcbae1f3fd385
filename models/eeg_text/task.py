"""The tasks of the eeg_text family: masked pre-training, and sentences from EEG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from gearshift.models.base import Batch, CachedFeatures, Context, DataError, Goal, Loss, SplitName
from gearshift.models.catalog import folder_of, local_path
from gearshift.models.common import initial_weights, subwords
from gearshift.models.common.family import (
    ENCODER,
    FACTS_FILE,
    FamilyTask,
    Sums,
    load_facts,
    path_of,
    save_facts,
)
from gearshift.models.common.layers import check_kernel, modules_of, restrict_blocks
from gearshift.models.common.predictions import FixedDraws
from gearshift.models.common.split import SPLITS
from gearshift.models.common.subwords import TOKENIZER_FILE
from gearshift.models.eeg_text import dataset, pretrained, showing
from gearshift.models.eeg_text.baselines import constant_sentence, interpolation
from gearshift.models.eeg_text.config import SIZES, Data, Model, Size
from gearshift.models.eeg_text.dataset import MaskedSamples, SampleRules, TextSamples
from gearshift.models.eeg_text.masked_series import check_share, masked_scores
from gearshift.models.eeg_text.metric import encode_inputs, masked_sums, predict_masked, text_metric
from gearshift.models.eeg_text.montage import INDICES
from gearshift.models.eeg_text.network import EegText, MaskedEeg
from gearshift.models.eeg_text.readers import files
from gearshift.models.eeg_text.recordings import Recordings, Use, split_items
from gearshift.models.eeg_text.texts import (
    BartTokenizer,
    SentenceByteTokenizer,
    SentenceTexts,
    SentenceTokenizer,
    build_tokenizer,
)

_START = "a run folder of  --set model.stage=text , or a safetensors file of its model"
_LARGEST_R2 = 0.02
"""Of a noise control."""


@dataclass(frozen=True)
class TrainedOnEeg:
    """What the model was trained on, as far as predictions depend on it."""

    size: Size
    channels: tuple[int, ...]
    """The indices of the recorded channels among the 105."""
    channel_map: Mapping[str, str] | None
    """The content of data.channels."""
    is_pretrained: bool = False
    """Whether the text decoder began as that of a BART."""
    steps: int = 0
    """Tokens to generate: those of the longest training sentence."""
    is_bytes: bool = False
    """Whether tokens are bytes; otherwise the tokenizer is saved in the run folder."""


class EegTask(FamilyTask):
    """What both uses of the encoder have in common; EegTask(…) is the task of the stage.

    Each has `use`, what recordings are read for; `fit_texts`, which checks and fits what depends on
    texts, and completes what TrainedOnEeg tells of them; `samples_of`, the samples of a split by
    the numbers of its items; `answer`, what the model makes of a recording; `inputs_of`, the inputs
    of the model in a batch; and `bands`, where metrics end in a noise control.
    """

    saved_files = (FACTS_FILE, TOKENIZER_FILE)
    """In stage encoder no tokenizer."""
    use: Use
    fit_texts: Any
    samples_of: Any
    answer: Any
    inputs_of: Any
    bands: Any
    recordings: Recordings
    rules: SampleRules
    trained: TrainedOnEeg

    def __new__(cls, *settings: Any) -> EegTask:
        of_stage: type[EegTask] = cls
        if cls is EegTask:
            of_stage = MaskedEegTask if settings[0].stage == ENCODER else EegTextTask
        return super().__new__(of_stage)

    def __init__(
        self,
        model: Model,
        data: Data,
        context: Context,
    ) -> None:
        """Read the settings; touches no file. Raises DataError for conflicting settings."""
        super().__init__(model, data, context)
        check_kernel(context.attention, context.device)
        self.size = SIZES[model.size]
        self.samples = data.seq_len
        self.path = data.path
        self.control = data.control

    def setup(self) -> None:
        """Find the recordings, split them and train the tokenizer; the run folder saves both.

        Reads and writes the disk: rank 0 first, then the others. Raises DataError.
        """
        data = self.data_settings
        self.recordings = files.read(local_path(self.path), data, self.use)
        items = self.recordings.items
        self.groups, numbers, names_by_split = split_items(items, data.split, self.rule)
        self.save_split(names_by_split)
        # Not more windows than the longest segment has.
        self.longest = max(item.samples for item in items)
        windows = min(data.windows, math.ceil(self.longest / self.samples))
        self.rules = SampleRules(self.samples, windows, self.rule.seed, self.control == "noise")

        recorded = sorted(set().union(*(item.channels for item in items)))
        trained = TrainedOnEeg(self.size, tuple(recorded), self.recordings.channel_map)
        self.trained = self.fit_texts(trained)
        save_facts(self.trained, self.context)
        for name in SPLITS:
            self.splits[name] = self.samples_of(name, numbers[name])

    def setup_without_data(self) -> None:
        self.encoder = None  # the initial weights are among the trained ones
        self.rules = SampleRules(self.samples, self.data_settings.windows, 0, is_noise=False)
        self.trained = load_facts(self.context.folder, TrainedOnEeg)
        self.size = self.trained.size

    def build(self) -> Module:
        model: Any = super().build()
        # Attention, not the layers around it: these may recompute it outside of their `forward`.
        attention = modules_of(model, ["SelfAttention", "BartDecoderLayer"])
        restrict_blocks(attention, self.context.attention)
        if self.model_settings.recompute_regions:
            model.encoder.recompute_regions()
        return model

    def blocks(self, model: Module) -> list[Module]:
        return modules_of(model, ["TransformerLayer", "BartDecoderLayer"])

    predict = showing.predict
    pictures = showing.pictures

    def facts(self) -> Mapping[str, Any]:
        recordings = self.recordings
        times = [item.samples for item in recordings.items]
        used = sum(min(time, self.rules.most) for time in times)
        facts: dict[str, Any] = {
            "source": self.path,
            **super().facts(),
            "readers": len({item.subject for item in recordings.items}),
            "windows": self.rules.windows,
            "time_kept": round(used / sum(times), 4),
            **recordings.facts,
        }
        if self.control == "noise":
            facts["control"] = self.bands()
        return facts

    def example(self) -> Sequence[Any]:
        """The inputs of the model for a training segment of median length. Reads the disk."""
        split = self.data("train")
        by_length = sorted(range(len(split)), key=lambda index: split.items[index].samples)
        sample = split.sample(by_length[len(split) // 2], FixedDraws())
        return self.inputs_of(self.collate([sample]))


class MaskedEegTask(EegTask):
    """Pre-training of the encoder on masked EEG, without text."""

    goal = Goal("val_masked_r2", "max")
    units = "values"
    use = "encoder"

    def fit_texts(self, trained: TrainedOnEeg) -> TrainedOnEeg:
        tokens = dataset.num_tokens(min(self.samples, self.longest))
        check_share(self.model_settings.mask_share, tokens)
        return trained

    def samples_of(self, split: SplitName, numbers: Sequence[int]) -> MaskedSamples:
        items = self.recordings.items
        share = self.model_settings.mask_share
        return MaskedSamples(items, numbers, self.rules, share, split == "train")

    def network(self) -> MaskedEeg:
        return MaskedEeg(self.size, self.samples, self.model_settings.dropout)

    def collate(self, samples: Sequence[Any]) -> Batch:
        return dataset.collate_masked(samples, self.samples)

    def loss(self, model: Module, batch: Batch) -> Loss:
        """Squared errors, summed over masked values."""
        errors = (predict_masked(model, batch) - batch["eeg"]).square()
        return Loss((errors * dataset.masked_values(batch)).sum(), {})

    def metric(self) -> Sums:
        return Sums(masked_sums, masked_scores)

    baselines = staticmethod(interpolation)
    predictions = showing.masked_predictions
    answer = showing.features

    def inputs_of(self, batch: Batch) -> Sequence[Any]:
        return [batch[name] for name in ("seen", "seen_mask", "mask_target")]

    def bands(self) -> Mapping[str, Any]:
        return {"val_masked_r2": {"max": _LARGEST_R2, "chance": 0.0}}


class EegTextTask(EegTask):
    """Sentences from EEG."""

    goal = Goal("val_rouge1_gain", "max")
    units = "tokens"
    use = "text"
    parts: Mapping[str, Sequence[str]] = {ENCODER: ("encoder",)}
    texts: SentenceTexts
    tokenizer: SentenceTokenizer
    has_features = False
    """Whether samples have cached features."""

    def __init__(
        self,
        model: Model,
        data: Data,
        context: Context,
    ) -> None:
        super().__init__(model, data, context)
        self.start = path_of(model.start)
        self.trains_top = self.is_frozen and model.unfreeze == "top"
        self.is_frozen = self.is_frozen and not self.trains_top
        self.folder = None if model.pretrained is None else folder_of(model.pretrained)
        if self.encoder and self.start:
            raise DataError(
                f"model.encoder '{self.encoder}' and model.start '{self.start}' are both set",
                where="model.encoder",
                allowed="one of them: the weights of model.start include an encoder",
            )

    def fit_texts(self, trained: TrainedOnEeg) -> TrainedOnEeg:
        # Reversed, so that of several spellings of a sentence the first counts.
        by_group = {item.group: item.text or "" for item in reversed(self.recordings.items)}
        if self.folder is not None:
            self.size = pretrained.size_of(self.folder, self.size)
            self.tokenizer = of_folder = pretrained.tokenizer_of(self.folder, self.size)
            subwords.save_tokenizer(of_folder.inner, self.context)
        else:
            self.tokenizer = build_tokenizer(
                self.model_settings.tokenizer,
                (by_group[key] for key in self.groups["train"]),
                self.size.vocabulary,
                self.context,
            )
        self.texts = SentenceTexts(
            by_group,
            self.groups,
            self.tokenizer,
            min(self.data_settings.text_len, self.size.text_context),
            self.rule.seed,
        )
        return replace(
            trained,
            size=self.size,
            steps=self.texts.steps,
            is_bytes=self.tokenizer.name == "bytes",
            is_pretrained=self.folder is not None,
        )

    def samples_of(self, split: SplitName, numbers: Sequence[int]) -> TextSamples:
        items = self.recordings.items
        # The setting is read only where it has an effect.
        word_dropout = self.model_settings.word_dropout if split == "train" else 0.0
        return TextSamples(items, numbers, self.rules, self.texts, word_dropout)

    def setup_without_data(self) -> None:
        super().setup_without_data()
        self.start = None
        self.folder = None
        self.tokenizer = SentenceByteTokenizer()
        if not self.trained.is_bytes:
            folder: Any = self.context.folder
            path = folder / TOKENIZER_FILE
            inner = subwords.load_tokenizer(path, str(path))
            is_pretrained = self.trained.is_pretrained
            self.tokenizer = BartTokenizer(inner, self.size.vocabulary, is_pretrained)

    def network(self) -> EegText:
        """`model.start` provides all weights, `model.pretrained` those of the text decoder."""
        model = EegText(
            self.size,
            self.samples,
            self.tokenizer.pad,
            self.model_settings.dropout,
            self.trained.is_pretrained,
        )
        if self.start is not None:
            self.loaded["start"] = initial_weights.load(
                "model.start",
                model,
                self.start,
                _START,
                open_checkpoint=self.context.open_checkpoint,
            )
        elif self.folder is not None:
            self.loaded["pretrained"] = pretrained.load(model.decoder, self.folder)
        if self.trains_top:
            model.freeze(model.encoder.regions)
        return model

    def frozen_encoder(self, model: Module) -> str | None:
        return "encoder" if self.is_frozen else None

    def varying_inputs(self) -> str | None:
        """None: words are dropped after the encoder. See models/base.py: HasFrozenEncoder."""
        return None

    def encoder_inputs(self, split: SplitName) -> dataset.TextInputs:
        """EEG of a split; in evaluation also noise."""
        return dataset.TextInputs(self.data(split), self.path)

    def encode(self, model: Module, batch: Batch) -> dict[str, Tensor]:
        """memory [input, time / 4, width], and samples [input], the number of valid samples."""
        memory, valid = encode_inputs(model, batch, "eeg")
        return {"memory": memory, "samples": valid.sum(1)}

    def use_features(self, features: Mapping[SplitName, CachedFeatures]) -> None:
        self.has_features = True
        for split, cached in features.items():
            self.data(split).features = cached

    def collate(self, samples: Sequence[Any]) -> Batch:
        return dataset.collate_text(samples, self.rules, self.tokenizer.pad)

    def loss(self, model: Module, batch: Batch) -> Loss:
        logits = model(*self.inputs_of(batch))
        nats = F.cross_entropy(
            logits.float().flatten(0, 1),
            batch["labels"].flatten(),
            ignore_index=dataset.IGNORE,
            reduction="sum",
        )
        return Loss(nats, {})

    def metric(self) -> Sums:
        return text_metric(self.texts)

    baselines = staticmethod(constant_sentence)
    preview = showing.preview
    predictions = showing.text_predictions
    answer = showing.sentences_file

    def frozen_parts(self) -> Sequence[str]:
        if self.has_features:
            return ()
        if self.trains_top:
            return [f"encoder.regions.{name}" for name in INDICES]
        return super().frozen_parts()

    def inputs_of(self, batch: Batch) -> Sequence[Any]:
        return (
            batch.get("eeg"),
            batch.get("eeg_windows", batch["eeg_mask"]),
            batch["text_ids"],
            batch.get("eeg_memory"),
            batch.get("eeg_pool"),
        )

    def facts(self) -> Mapping[str, Any]:
        texts = self.texts
        return {
            **super().facts(),
            "tokenizer": self.tokenizer.name,
            "candidates": texts.candidate_count,
            "texts_cut": texts.cut,
        }

    def bands(self) -> Mapping[str, Any]:
        chance = 1 / self.texts.candidate_count
        margin = 3 * math.sqrt(chance * (1 - chance) / len(self.groups["val"]))
        return {
            "val_retrieval": {
                "min": max(0.0, chance - margin),
                "max": chance + margin,
                "chance": chance,
            },
            # The worse of two comparisons counts: a gain by chance is below 0, not above.
            "val_rouge1_gain_in_se": {"min": -3.0, "max": 2.0, "chance": 0.0},
        }
