"""A user's DeepSpeed config is validated against the settings."""

import copy
from types import SimpleNamespace

import pytest

from gearshift.engines.zero.config import FREE, ZERO, ConfigConflict, decided_keys, merge, shipped
from gearshift.training.settings import nested
from tests.engines.parity import Case, distance, train
from tests.engines.test_parity import TOLERANCE, able

BATCHING = SimpleNamespace(global_batch=32, micro_batch=4, accumulation=4)


def settings(precision="fp32", schedule="cosine", offload=None, **optim):
    values = {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "momentum": 0.9}
    values |= {"weight_decay": 0.01, "clip_norm": 1.0}
    optim, schedule = SimpleNamespace(**values | optim), SimpleNamespace(name=schedule)
    engine = SimpleNamespace(offload=offload)
    return SimpleNamespace(precision=precision, schedule=schedule, optim=optim, engine=engine)


def values(engine="zero2", **changes):
    return decided_keys(engine, shipped(f"{engine}.json"), BATCHING, settings(**changes))


def conflicts(own, decided):
    """The conflicts of a user's config."""
    try:
        merge({"zero_optimization": {}}, own, decided)
    except ConfigConflict as error:
        return list(error.conflicts)
    return []


def only(own, **changes):
    (found,) = conflicts(own, values(**changes))
    return found


AUTO = dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")
WARMUP = dict.fromkeys(("warmup_min_ratio", "warmup_num_steps"), "auto")
BATCH = (
    "gradient_accumulation_steps",
    "gradient_clipping",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
)
HUGGING_FACE = {
    "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16, "hysteresis": 2},
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": AUTO},
    "scheduler": {"type": "WarmupCosineLR", "params": WARMUP},
    "zero_optimization": {
        "stage": 2,
        "offload_optimizer": {"device": "none", "pin_memory": True},
        "allgather_partitions": True,
        "reduce_bucket_size": "auto",
        "overlap_comm": False,
    },
    **dict.fromkeys(BATCH, "auto"),
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


OFFLOAD = "zero_optimization.offload_optimizer"


@pytest.mark.parametrize(
    ("key", "given", "setting", "value"),
    [
        ("train_batch_size", 64, "train.global_batch", 32),
        ("train_batch_size", "32", "train.global_batch", 32),
        ("train_micro_batch_size_per_gpu", 8, "train.micro_batch", 4),
        ("gradient_accumulation_steps", 8, "train.accumulation", 4),
        ("gradient_clipping", 0.5, "optim.clip_norm", 1.0),
        ("gradient_clipping", True, "optim.clip_norm", 1.0),
        ("bf16.enabled", True, "precision", "fp32"),
        ("zero_optimization.stage", 3, "engine.name", "zero2"),
        (f"{OFFLOAD}.device", "cpu", "engine.name", "zero2"),
        ("optimizer.type", "SGD", "optim.name", "adamw"),
        ("optimizer.params.lr", 3e-4, "optim.lr", 1e-3),
        ("optimizer.params.betas", [0.9, 0.999], "optim.betas", [0.9, 0.95]),
        ("scheduler.type", "WarmupDecayLR", "schedule.name", "cosine"),
    ],
)
def test_a_conflict_has_its_key_and_both_values(key, given, setting, value):
    found = only(nested({key: given}))
    assert (found.key, found.value) == (key, given)
    assert found.problem == f"differs from {setting} {value}"
    assert found.allowed[-1] == "auto" and len(found.allowed) >= 2


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_block_of_deepspeed_is_our_precision(precision):
    on = {precision: {"enabled": True}}
    assert conflicts(on, values(precision=precision)) == []
    assert only(on, precision="fp32").problem == "differs from precision fp32"
    assert only({precision: {"enabled": False}}, precision=precision).allowed == (True, "auto")
    more = {"bf16": {"enabled": True, "bf16_optimizer_states": True}}
    assert only(more, precision="bf16").key == "bf16.bf16_optimizer_states"


@pytest.mark.parametrize(
    ("key", "did_you_mean"),
    [
        ("train_batchsize", "train_batch_size"),
        ("zero_optimization.overlap_com", "zero_optimization.overlap_comm"),
        ("colour", None),
    ],
)
def test_an_unknown_key_has_the_nearest_one(key, did_you_mean):
    found = only(nested({key: 32}))
    assert (found.key, found.did_you_mean) == (key, did_you_mean)


@pytest.mark.parametrize(
    ("key", "setting"),
    [
        ("tensorboard.enabled", "track"),
        ("activation_checkpointing.partition_activations", "memory.activation_checkpointing"),
        ("zero_optimization.cpu_offload", "engine.name"),
        ("zero_optimization.round_robin_gradients", None),
    ],
)
def test_what_is_not_admitted_is_a_conflict_with_the_setting_that_decides_it(key, setting):
    problem = f"is decided by {setting}" if setting else "is not supported here"
    assert only(nested({key: True})).problem == problem


OFF = (
    "allgather_partitions",
    "contiguous_gradients",
    "overlap_comm",
    "reduce_scatter",
    "override_module_apply",
)
OFF += ("use_multi_rank_bucket_allreduce", "ignore_unused_parameters", "load_from_fp32_weights")
ON = (
    "enable_sanity_checks",
    "log_trace_cache_warnings",
    "parameter_alignment",
    "pipeline_loading_checkpoint",
)
ON += (
    "memory_efficient_linear",
    "stage3_allgather_sequential",
    "stage3_use_all_reduce_for_fetch_params",
)
ADMITTED = {
    **dict.fromkeys(OFF, False),
    **dict.fromkeys((*ON, "stage3_gather_16bit_weights_on_model_save"), True),
    **{"allgather_bucket_size": 100, "reduce_bucket_size": 50, "sub_group_size": 60},
    **dict.fromkeys(
        ("stage3_max_live_parameters", "stage3_max_reuse_distance", "stage3_prefetch_bucket_size"),
        10,
    ),
    **{"stage3_model_persistence_threshold": 100, "stage3_param_persistence_threshold": 0},
}
OLDER = {"stage3_gather_fp16_weights_on_model_save": True}


def test_every_key_of_zero_that_is_admitted_is_tried():
    free = {key.removeprefix(f"{ZERO}.") for key in FREE if key.startswith(ZERO)}
    assert {*ADMITTED, *OLDER} == free - {
        "offload_optimizer.pin_memory",
        "offload_param.pin_memory",
    }


@pytest.mark.slow
@able("zero3")
def test_admitted_keys_change_no_loss_norm_or_moment(worlds, engine):
    plain = worlds[1].run(train, Case("local", steps=3))
    for keys in (ADMITTED, OLDER):
        apart = distance(worlds[2].run(train, Case(engine, steps=3, zero=keys)), plain)
        assert max(apart.values()) < TOLERANCE, (keys, apart)
