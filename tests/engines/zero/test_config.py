"""A user's DeepSpeed config is validated against the settings."""

import copy
import os
from types import SimpleNamespace

import pytest

from engines.zero import config as zero_config
from engines.zero.config import ConfigConflict, conflicts, merge, setting_values
from engines.zero.config_file import shipped
from training.settings import nested

BATCHING = SimpleNamespace(global_batch=32, micro_batch=4, accumulation=4)


def settings(precision="fp32", schedule="cosine", offload=None, **optim):
    values = {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "momentum": 0.9}
    values |= {"weight_decay": 0.01, "clip_norm": 1.0}
    optim, schedule = SimpleNamespace(**values | optim), SimpleNamespace(name=schedule)
    engine = SimpleNamespace(offload=offload)
    return SimpleNamespace(precision=precision, schedule=schedule, optim=optim, engine=engine)


def values(engine="zero2", **changes):
    return setting_values(engine, shipped(f"{engine}.json"), BATCHING, settings(**changes))


def only(own, **changes):
    (found,) = conflicts(own, values(**changes))
    return found


HUGGING_FACE = {
    "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16, "hysteresis": 2},
    "bf16": {"enabled": "auto"},
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
    },
    "scheduler": {
        "type": "WarmupCosineLR",
        "params": {"warmup_min_ratio": "auto", "warmup_num_steps": "auto"},
    },
    "zero_optimization": {
        "stage": 2,
        "offload_optimizer": {"device": "none", "pin_memory": True},
        "allgather_partitions": True,
        "reduce_bucket_size": "auto",
        "overlap_comm": False,
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "steps_per_print": 2000,
    "wall_clock_breakdown": False,
}


def test_auto_means_the_settings():
    for precision in ("fp32", "bf16", "fp16"):
        assert conflicts(HUGGING_FACE, values(precision=precision)) == []


def test_merging_leaves_out_keys_that_settings_decide_and_changes_neither_input():
    below, own = shipped("zero2.json"), copy.deepcopy(HUGGING_FACE)
    assert merge(below, own, values()) == {
        "zero_optimization": {
            **shipped("zero2.json")["zero_optimization"],
            "offload_optimizer": {"device": "none", "pin_memory": True},
            "allgather_partitions": True,
            "overlap_comm": False,
        },
        "steps_per_print": 2000,
        "wall_clock_breakdown": False,
    }
    assert below == shipped("zero2.json")
    assert own == HUGGING_FACE


def test_merging_rejects_a_file_with_all_its_conflicts_in_the_order_of_the_file():
    own = {"gradient_clipping": 2.0, "nope": 1, "zero_optimization": {"stage": 1}, "amp": True}
    with pytest.raises(ConfigConflict) as error:
        merge(shipped("zero2.json"), own, values())
    keys = [c.key for c in error.value.conflicts]
    assert keys == ["gradient_clipping", "nope", "zero_optimization.stage", "amp"]


LEAVE = 'leave it out or write "auto"'
OFFLOAD = "zero_optimization.offload_optimizer"


@pytest.mark.parametrize(
    ("key", "given", "setting", "value", "option"),
    [
        ("train_batch_size", 64, "train.global_batch", 32, "--set train.global_batch=64"),
        ("train_micro_batch_size_per_gpu", 8, "train.micro_batch", 4, "--set train.micro_batch=8"),
        ("gradient_accumulation_steps", 8, "train.accumulation", 4, None),
        ("gradient_clipping", 0.5, "optim.clip_norm", 1.0, "--set optim.clip_norm=0.5"),
        ("gradient_clipping", 0, "optim.clip_norm", 1.0, "--set optim.clip_norm=null"),
        ("bf16.enabled", True, "precision", "fp32", "--precision bf16"),
        ("fp16.enabled", True, "precision", "fp32", "--precision fp16"),
        ("zero_optimization.stage", 3, "engine.name", "zero2", "--engine zero3"),
        (f"{OFFLOAD}.device", "cpu", "engine.name", "zero2", "--engine zero2-offload"),
        ("optimizer.type", "SGD", "optim.name", "adamw", "--set optim.name=sgd"),
        ("optimizer.type", "Lamb", "optim.name", "adamw", None),
        ("optimizer.params.lr", 3e-4, "optim.lr", 1e-3, "--set optim.lr=0.0003"),
        (
            *("optimizer.params.betas", [0.9, 0.999], "optim.betas", [0.9, 0.95]),
            "--set 'optim.betas=[0.9, 0.999]'",
        ),
        (
            *("scheduler.type", "WarmupDecayLR", "schedule.name", "cosine"),
            "--set schedule.name=linear",
        ),
    ],
)
def test_a_conflict_has_its_key_both_values_and_a_fix(key, given, setting, value, option):
    found = only(nested({key: given}))
    assert (found.key, found.value) == (key, given)
    assert (found.setting, found.setting_value) == (setting, value)
    assert found.problem == f"differs from {setting}"
    assert found.fix == (f"{LEAVE}; or  {option}" if option else LEAVE)


@pytest.mark.parametrize(
    "own",
    [
        {"train_batch_size": 32, "train_micro_batch_size_per_gpu": 4},
        {"gradient_accumulation_steps": 4, "gradient_clipping": 1},
        {"fp16": {"enabled": False, "loss_scale": 128}, "bf16": {"enabled": False}},
        {"optimizer": {"type": "Adam", "params": {"lr": 0.001, "torch_adam": True}}},
        {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "none"}}},
        {"zero_optimization": {"offload_param": None}},
        {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False},
        {"tensorboard": {"enabled": False}, "activation_checkpointing": {}},
    ],
)
def test_a_value_equal_to_the_setting_is_no_conflict(own):
    assert conflicts(own, values()) == []


def test_clipping_off_is_zero_for_deepspeed():
    assert conflicts({"gradient_clipping": 0.0}, values(clip_norm=None)) == []
    assert only({"gradient_clipping": 1.0}, clip_norm=None).setting_value is None


def test_true_is_not_one_text_is_not_a_number_and_values_are_shown_as_json():
    assert only({"gradient_clipping": True}).fix == LEAVE
    assert only({"train_batch_size": "32"}).value == "32"
    assert only({"fp16": {"enabled": True}}).allowed == ("false", "auto")
    assert only({"train_batch_size": 1}).allowed == ("32", "auto")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_block_of_deepspeed_is_our_precision(precision):
    on = {precision: {"enabled": True}}
    assert conflicts(on, values(precision=precision)) == []
    assert only(on, precision="fp32").setting_value == "fp32"
    off = only({precision: {"enabled": False}}, precision=precision)
    assert off.fix.endswith("--precision fp32")
    more = {"bf16": {"enabled": True, "bf16_optimizer_states": True}}
    assert only(more, precision="bf16").key == "bf16.bf16_optimizer_states"


def test_parameters_of_a_scheduler_are_decided_by_schedule():
    found = only({"scheduler": {"type": "WarmupCosineLR", "params": {"warmup_num_steps": 10}}})
    assert (found.setting, found.setting_value) == ("schedule", None)
    assert found.problem == "is decided by schedule"


def test_weights_of_zero3_offload_may_stay_on_the_device():
    own = {
        d: nested({"zero_optimization.offload_param.device": d}) for d in ("none", "nvme", "cpu")
    }
    assert conflicts(own["none"], values("zero3-offload")) == []
    assert only(own["nvme"], engine="zero3-offload").allowed == ("cpu", "none", "auto")
    assert only(own["cpu"], engine="zero3").fix.endswith("--engine zero3-offload")


def test_weights_are_where_engine_offload_has_them():
    own = {d: nested({"zero_optimization.offload_param.device": d}) for d in ("none", "cpu")}
    found = only(own["none"], engine="zero3-offload", offload="all")
    assert (found.setting, found.setting_value) == ("engine.offload", "all")
    assert found.allowed == ("cpu", "auto") and found.fix.endswith("--set engine.offload=states")
    assert conflicts(own["cpu"], values("zero3-offload", offload="all")) == []
    layout = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}
    says = setting_values("zero3-offload", layout, BATCHING, settings(offload="states"))
    assert conflicts(own["none"], says) == []
    (found,) = conflicts(own["cpu"], says)
    assert found.setting == "engine.offload" and found.fix.endswith("--set engine.offload=all")


def test_an_offload_block_without_a_device_keeps_that_of_the_engine():
    own = nested({f"{OFFLOAD}.pin_memory": False})
    block = merge(shipped("zero2-offload.json"), own, values("zero2-offload"))["zero_optimization"]
    assert block["offload_optimizer"] == {"device": "cpu", "pin_memory": False}


@pytest.mark.parametrize(
    ("key", "did_you_mean"),
    [
        ("train_batchsize", "train_batch_size"),
        ("zero_optimization.overlap_com", "zero_optimization.overlap_comm"),
        (f"{OFFLOAD}.pinmemory", f"{OFFLOAD}.pin_memory"),
        ("colour", None),
    ],
)
def test_an_unknown_key_has_the_nearest_one(key, did_you_mean):
    found = only(nested({key: 32}))
    assert (found.key, found.did_you_mean) == (key, did_you_mean)
    assert found.problem == "is unknown"
    assert len(found.allowed) <= 12


@pytest.mark.parametrize(
    ("key", "setting"),
    [
        ("tensorboard.enabled", "track"),
        ("activation_checkpointing.partition_activations", None),
        ("pipeline.stages", None),
        ("zero_optimization.cpu_offload", "engine.name"),
    ],
)
def test_an_unsupported_key_is_a_conflict(key, setting):
    found = only(nested({key: True}))
    assert (found.fix, found.setting) == ("leave it out", setting or found.setting)


def test_required_values_cannot_be_changed_and_a_block_must_be_an_object():
    for key in ("zero_allow_untested_optimizer", "zero_optimization.compute_grad_norm"):
        assert only(nested({key: False})).problem == "must be true under this engine", key
    for key in ("zero_optimization", "optimizer", "fp16"):
        assert only({key: 3}).problem == "must be an object", key


class RecordingDict(dict):
    """A config that records which keys DeepSpeed reads."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def get(self, key, default=None):
        self.names.add(key)
        return default

    def __contains__(self, key):
        self.names.add(key)
        return False

    def keys(self):
        return self


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setitem(os.environ, "DS_ACCELERATOR", "cpu")
    return pytest.importorskip("deepspeed")


def test_every_key_the_installed_deepspeed_reads_is_in_the_table(installed):
    from deepspeed.runtime.config import DeepSpeedConfig

    lookups = RecordingDict()
    config = DeepSpeedConfig.__new__(DeepSpeedConfig)
    config._param_dict = lookups
    config._initialize_params(lookups)
    tables = ("FREE", "SETTINGS_BLOCKS", "SETTINGS_VALUES", "FIXED", "UNSUPPORTED")
    known = {key for table in tables for key in getattr(zero_config, table)}
    assert lookups.names - known == set()
    assert len(lookups.names) > 30


def test_every_zero_and_offload_key_of_the_installed_deepspeed_is_in_the_table(installed):
    from deepspeed.runtime.zero import offload_config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    names = {field.alias or name for name, field in DeepSpeedZeroConfig.model_fields.items()}
    assert names <= {*zero_config.ZERO, *zero_config.ZERO_FIXED, *zero_config.ZERO_UNSUPPORTED}
    blocks = {
        "offload_optimizer": offload_config.DeepSpeedZeroOffloadOptimizerConfig,
        "offload_param": offload_config.DeepSpeedZeroOffloadParamConfig,
    }
    for block, model in blocks.items():
        unknown = set(model.model_fields) - zero_config.OFFLOAD[block]
        assert unknown <= zero_config.OFFLOAD_UNSUPPORTED, block
