"""Words of the original code bases, options and settings, that have another name or none here."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launcher.base.diagnostics import OFF, ON, counted, fold, plain
from launcher.config.options import OPTIONS

_FLAGS = {option.key: option.flag for option in OPTIONS if option.key is not None}
SEVERAL = "several"
"""The words that more than one original has."""


def _epochs(value: object) -> object:
    return counted(int(number), "epoch") if (number := plain(value)).isdecimal() else value


def _share(value: object) -> object:
    """A fraction of the run as a percentage."""
    try:
        return f"{float(plain(value)) * 100:g}%"
    except ValueError:
        return value


def _parent(value: object) -> object:
    return str(Path(str(value)).parent)


def _project(value: object) -> object:
    return [f"wandb:{value}"]


@dataclass(frozen=True)
class Original:
    """A word of the originals under its names there, and its equivalent."""

    names: tuple[str, ...]
    """As written there; `optimizer.type` only in that section."""
    here: str | None
    """An option, or the key of a setting; None: no equivalent."""
    remark: str = ""
    """For the page about the originals; without an equivalent, the reason, for messages too."""
    on: object = None
    """The value of a switch that is given without a value, or as true."""
    off: object = None
    """The value of a switch that is given as false; None: the line is to be removed."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Values that have another name here."""
    convert: Callable[[object], object] = lambda value: value
    """Turns a value of the original into one here."""

    @property
    def flag(self) -> str | None:
        """The option to type: the setting's own if it has one, else --set."""
        if self.here is None or self.here.startswith("--"):
            return self.here
        return _FLAGS.get(self.here, "--set")

    @property
    def option(self) -> str | None:
        """What to type, without a value."""
        return f"--set {self.here}" if self.flag == "--set" else self.flag

    def removal(self, typed: object) -> str | None:
        """Why nothing replaces the word with the value `typed`; None: something does."""
        if self.here is None:
            return f"remove it: {self.remark}"
        if _word(typed) == "null" and self.here in (self.flag, "track"):
            return "remove it: null is the default"
        is_off = self.on is not None and self.off is None and _word(typed) in OFF
        return "remove it: off unless you ask for it" if is_off else None

    def value(self, typed: object) -> object:
        """The value here for a `typed` value; None: the switch is given without a value."""
        word = _word(typed)
        if self.on is not None and word in ON:
            return self.on
        if self.off is not None and word in OFF:
            return self.off
        return self.words.get(word) or (None if typed is None else self.convert(typed))

    def line(self, typed: object = None) -> str:
        """The option to type, with its value; `…` for an unknown one."""
        value = self.value(typed)
        if isinstance(value, list):
            value = ",".join(value)
        text = "…" if value is None else shlex.quote(plain(value))
        return f"{self.option}{'=' if self.flag == '--set' else ' '}{text}"


def _word(typed: object) -> str:
    return "true" if typed is None else plain(typed).strip().lower()


_NETWORK = "`model.size` selects the network"
_ALWAYS = "always on"
ORIGINALS: Mapping[str, Sequence[Original]] = {
    SEVERAL: (
        Original(("data_path",), "data.path"),
        Original(("epochs", "num_epochs", "num_train_epochs"), "train.epochs"),
        Original(("batch_size",), "train.micro_batch", "the micro-batch per process"),
        Original(("gradient_accumulation_steps",), "train.accumulation"),
        Original(("learning_rate",), "optim.lr"),
        Original(("weight_decay",), "optim.weight_decay"),
        Original(("gradient_clip_norm", "GRADIENT_CLIP", "max_grad_norm"), "optim.clip_norm"),
        Original(("warmup_steps",), "schedule.warmup", "in steps"),
        Original(("warmup_epochs",), "schedule.warmup", "in epochs", convert=_epochs),
        Original(("num_workers", "dataloader_num_workers"), "loader.workers"),
        Original(("pin_memory", "dataloader_pin_memory"), "loader.pin_memory"),
        Original(("use_amp", "mixed_precision", "fp16"), "precision", "or `bf16`", "fp16", "fp32"),
        Original(
            ("gradient_checkpointing",), "memory.activation_checkpointing", on="full", off="none"
        ),
        Original(("max_length", "max_sequence_length", "MAX_EEG_LENGTH"), "data.seq_len"),
        Original(("val_split", "validation_split"), "eval.share"),
        Original(("eval_steps",), "eval.every", "in steps"),
        Original(("validate_every", "eval_interval"), "eval.every", "in epochs", convert=_epochs),
        Original(("save_steps", "checkpoint_save_frequency"), "save.every", "in steps"),
        Original(
            ("save_every", "save_interval", "SAVE_EVERY_N_EPOCHS"),
            "save.every",
            "in epochs",
            convert=_epochs,
        ),
        Original(("log_interval", "log_every"), "log.every", "in steps"),
        Original(("patience", "EARLY_STOPPING_PATIENCE"), "stop.patience", "in evaluations"),
        Original(("SEED", "random_seed"), "train.seed"),
        Original(
            ("output_dir", "save_dir", "checkpoint_dir", "MODEL_SAVE_DIR", "RESULTS_DIR"),
            "--out",
            "one folder for all results",
        ),
        Original(("logdir",), "--out", "see [TensorBoard](tracking.md#tensorboard)"),
        Original(("tensorboard", "use_tensorboard"), "track", on=["tensorboard"]),
        Original(("use_wandb",), "track", on=["wandb"]),
        Original(("wandb_project",), "track", convert=_project),
        Original(("resume_from_checkpoint", "resume_from"), "--resume", "a run or a checkpoint"),
        Original(("test_split",), None, "as large as validation, `eval.share`"),
    ),
    "event_seg": (
        Original(("cpu",), "device", on="cpu", off="auto"),
        Original(("downsample_factor",), "data.downsample"),
        Original(("embedding_dims",), "model.widths"),
        Original(("lr_scheduler",), "schedule.name"),
        Original(("dataset",), None, "the format is found in the files"),
        Original(("event_representation", "time_bins"), None, "a voxel grid of 10 time bins"),
        Original(("shuffle",), None, _ALWAYS),
        Original(
            (
                *("alpha_values", "layer_weights", "regularized_layers"),
                *("num_heads", "dropout", "use_residual"),
            ),
            None,
            "the network has convolutions only",
        ),
        Original(("use_gpt4o", "azure_openai"), None, "no run contacts a server for analysis"),
        Original(("visualize", "num_samples"), None, "a run shows predictions by itself"),
    ),
    "language": (
        Original(("use_gpu",), "device", "the default takes a GPU if there is one", "cuda", "cpu"),
        Original(("base_model",), "model.pretrained", "a local folder"),
        Original(("max_ram_percent",), "limits.ram", "in percent, see [limits](limits.md)"),
        Original(("max_gpu_percent", "max_gpu_memory_percent"), "limits.gpu", "in percent"),
        Original(("max_swap_percent",), "limits.swap", "in percent"),
        Original(("memory_check_interval",), "limits.check_every_s", "in seconds"),
        Original(("resource_efficient_mode",), "mode", on="resource-efficient"),
        Original(("mac", "mac_mode"), "limits.profile", on="mac"),
        Original(("cpu_only", "cpu_only_mode"), "limits.profile", on="cpu-only"),
        Original(("max_checkpoints",), "save.keep_last"),
        Original(("auto_resume",), "--resume", on="auto"),
        Original(("train_split",), None, "training takes what `eval.share` leaves"),
        Original(("use_existing_data",), None, "only `--download-data` downloads"),
        Original(
            ("use_2b_submodel", "enable_mix_and_match"), None, "`model.pretrained` is one model"
        ),
    ),
    "abr": (
        Original(("prefetch_factor",), "loader.prefetch"),
        Original(("persistent_workers",), "loader.persistent"),
        Original(("optimizer.type",), "optim.name"),
        Original(
            ("scheduler.type",), "schedule.name", words={"cosine_warm_restarts": "cosine-restarts"}
        ),
        Original(("T_0",), "schedule.cycle", "in epochs", convert=_epochs),
        Original(("T_mult",), "schedule.t_mult"),
        Original(("peak_loss_type",), "model.loss.regression", "for the signal, too"),
        Original(("loss_weights.signal",), "model.loss.signal"),
        Original(("loss_weights.peak_exist",), "model.loss.exists"),
        Original(("loss_weights.peak_latency",), "model.loss.latency"),
        Original(("loss_weights.peak_amplitude",), "model.loss.amplitude"),
        Original(("loss_weights.classification",), "model.loss.class"),
        Original(("loss_weights.threshold",), "model.loss.threshold"),
        Original(("label_smoothing",), "model.loss.label_smoothing"),
        Original(("peak_start",), "model.curriculum.peak"),
        Original(("threshold_start",), "model.curriculum.threshold"),
        Original(("class_start",), "model.curriculum.class"),
        Original(("ramp_epochs",), "model.curriculum.ramp"),
        Original(("use_memory_efficient_attention",), "memory.attention", on="flash", off="auto"),
        Original(("clear_cache_every",), "memory.empty_cache_every", "in steps"),
        Original(("save_best_only",), "save.every", on="null"),
        Original(("save_best_metric",), "eval.metric", words={"f1_macro": "val_macro_f1 max"}),
        Original(("distributed",), "engine.name", on="ddp", off="local"),
        Original(("gpu_ids",), None, "`CUDA_VISIBLE_DEVICES` selects GPUs, `--nproc` their number"),
        Original(("eta_min",), None, "`schedule.final` is a share of `optim.lr`"),
        Original(
            ("scheduler.factor", "scheduler.patience", "scheduler.step_size", "scheduler.gamma"),
            None,
            "of schedules that do not exist here",
        ),
        Original(("curriculum.enabled",), None, "with `ramp` and all starts at 0 it is off"),
        Original(("use_class_weights", "huber_delta"), None, "always on, with a delta of 1"),
        Original(
            ("use_focal_loss", "focal_alpha", "focal_gamma", "use_balanced_sampler"),
            None,
            "weights of classes balance the loss",
        ),
        Original(
            ("use_mixup", "mixup_alpha", "use_tta", "tta_steps", "augment", "val_augment"),
            None,
            "samples are used as recorded",
        ),
        Original(("valid_peaks_only",), None, "unknown labels are masked"),
        Original(("evaluation.metrics",), None, "all of them are computed"),
        Original(
            ("save_optimizer_state", "save_scheduler_state"), None, "every checkpoint is complete"
        ),
        Original(("use_half_precision_intermediates",), None, "`precision` decides"),
        Original(("hardware.benchmark",), None, "no search for faster convolutions"),
        Original(("log_level",), None, "the console and `log.txt` have every message"),
        Original(("wandb_entity",), None, "`--track wandb:ENTITY/PROJECT`"),
        Original(
            ("experiment.name", "experiment.description", "experiment.tags"),
            None,
            "`--out` names the run",
        ),
        Original(
            (
                *("input_channels", "static_dim", "base_channels", "n_levels", "num_classes"),
                *("sequence_length", "signal_length", "num_transformer_layers", "num_heads"),
                *("use_cross_attention", "use_positional_encoding", "positional_type"),
                *("film_dropout", "dropout", "use_cfg", "use_multi_film", "use_attention_heads"),
                *("predict_uncertainty", "channel_multiplier", "use_enhanced_s4"),
                *("use_learnable_timescales", "cfg_dropout_prob"),
            ),
            None,
            _NETWORK,
        ),
        Original(("inference", "clinical"), None, "a run trains and evaluates"),
        Original(("classes",), None, "the classes are those of the data"),
        Original(("validation",), None, "patients are split once, see `eval.share`"),
    ),
    "doc_translation": (
        Original(("batch_size",), "train.global_batch", "there the global batch"),
        Original(("batch_size_per_gpu", "per_device_train_batch_size"), "train.micro_batch"),
        Original(("warmup_ratio",), "schedule.warmup", "in percent", convert=_share),
        Original(("logging_steps",), "log.every"),
        Original(("load_best_model_at_end",), "save.load_best"),
        Original(("num_queries",), "model.queries"),
        Original(("num_hidden_layers",), "model.decoder_layers", "see also `model.take_layers`"),
        Original(
            ("image_dir", "zh_mmd_dir", "en_mmd_dir", "split_json_file_path"),
            "data.path",
            "the folder that contains it",
            convert=_parent,
        ),
        Original(
            ("trans_model_dir", "dit_model_dir", "nougat_model_dir"),
            "model.pretrained",
            "one folder for the three",
            convert=_parent,
        ),
        Original(("zh_tokenizer_dir", "en_tokenizer_dir"), None, "made from the training texts"),
        Original(("image_processor_dir", "qformer_config_dir"), None, _NETWORK),
    ),
    "eeg_text": (
        Original(("ZUCO_ROOT",), "data.path"),
        Original(("MAX_TEXT_LENGTH",), "data.text_len"),
        Original(("PRETRAIN_EPOCHS", "TRAIN_EPOCHS"), "train.epochs", "of the stage"),
        Original(("PRETRAIN_BATCH_SIZE",), "train.micro_batch"),
        Original(("PRETRAIN_LR",), "optim.lr"),
        Original(("MASK_RATIO",), "model.mask_share"),
        Original(("MASK_STRATEGY",), None, "each epoch draws new masks"),
        Original(("NUM_CHANNELS", "SAMPLING_RATE"), None, "105 channels at 500 Hz"),
        Original(
            ("CHANNEL_GROUPS", "TASKS", "SUBJECT_CODES"), None, "the files of `data.path` decide"
        ),
        Original(("PROCESSED_DATA_DIR",), None, "recordings are read as they are"),
        Original(
            (
                *("HIDDEN_DIM", "NUM_TRANSFORMER_LAYERS", "NUM_ATTENTION_HEADS"),
                *("FEEDFORWARD_DIM", "USE_SMALL_BART"),
            ),
            None,
            _NETWORK,
        ),
        Original(("BART_MODEL",), None, "`model.pretrained` takes a local folder"),
        Original(
            ("USE_LORA", "LORA_R", "LORA_ALPHA", "LORA_DROPOUT", "LORA_TARGET_MODULES"),
            None,
            "adapters are for family language",
        ),
        Original(("MAX_GENERATION_LENGTH", "NUM_BEAMS"), None, "`data.text_len` tokens, greedy"),
        Original(("ENABLE_CPU_OPTIMIZATIONS",), None, _ALWAYS),
    ),
}
"""By family. A word whose last part is a setting here needs no entry; see errors.unknown_key."""

SECTIONS = frozenset(
    {
        *("training", "logging", "experiment", "loss", "loss.loss_weights", "optimizer"),
        *("scheduler", "evaluation", "checkpoint", "hardware", "advanced", "advanced.curriculum"),
    }
)
"""Sections of the originals' files: each key in them has a message of its own."""

_BY_NAME = {
    family: {fold(name): original for original in originals for name in original.names}
    for family, originals in ORIGINALS.items()
}


def original_of(name: str, family: str | None = None) -> Original | None:
    """The entry for an option or a key, without regard to case, `-`, `_`.

    Entries of `family` come first, then those of several. Of the other families an entry counts
    only with an equivalent; where no family is known, another one will do if there is no such.
    """
    own = [_BY_NAME.get(family or "", {}), _BY_NAME[SEVERAL]]
    others = [table for name, table in _BY_NAME.items() if name not in (family, SEVERAL)]
    of_others = [table[word] for word in _words(fold(name)) for table in others if word in table]
    found = [table[word] for word in _words(fold(name)) for table in own if word in table]
    found += [original for original in of_others if original.here is not None]
    found += of_others if family is None else []
    return found[0] if found else None


def _words(name: str) -> Iterator[str]:
    """The ends of a dotted key, the longest first, then the sections it is in."""
    parts = name.split(".")
    yield from (".".join(parts[at:]) for at in range(len(parts)))
    yield from parts[:-1]
