"""What a DeepSpeed config may ask trains as under local, or is refused with the reason."""

import pytest

from engines.zero import config as zero_config
from engines.zero.config import conflicts
from tests.engines.parity import Case, distance, train
from tests.engines.test_parity import TOLERANCE, able
from tests.engines.zero.test_config import values

_OFF = ("allgather_partitions", "contiguous_gradients", "overlap_comm", "reduce_scatter")
_ON = ("enable_sanity_checks", "log_trace_cache_warnings", "parameter_alignment")
_ON_TOO = ("pipeline_loading_checkpoint", "stage3_use_all_reduce_for_fetch_params")
_NUMBERS = ("max_live_parameters", "max_reuse_distance", "prefetch_bucket_size")
ADMITTED = {
    "communication": {
        **dict.fromkeys((*_OFF, "use_multi_rank_bucket_allreduce"), False),
        **{"allgather_bucket_size": 100, "reduce_bucket_size": 50},
    },
    "live weights": {
        **dict.fromkeys(("memory_efficient_linear", "stage3_allgather_sequential"), True),
        **{f"stage3_{name}": 10 for name in _NUMBERS},
        **{"stage3_model_persistence_threshold": 100, "stage3_param_persistence_threshold": 0},
        "sub_group_size": 60,
    },
    "others": {
        **dict.fromkeys((*_ON, *_ON_TOO, "stage3_gather_16bit_weights_on_model_save"), True),
        **{"ignore_unused_parameters": False, "load_from_fp32_weights": False},
        "override_module_apply": False,
    },
    "older names": {"stage3_gather_fp16_weights_on_model_save": True},
}


def test_every_key_of_zero_that_is_admitted_is_tried():
    tried = {key for keys in ADMITTED.values() for key in keys}
    assert tried == zero_config.ZERO - {"stage", "offload_optimizer", "offload_param"}


@able("zero1", "zero2", "zero3", "zero2-offload", "zero3-offload")
def test_admitted_keys_change_no_loss_norm_or_moment(worlds, engine):
    plain = worlds[1].run(train, Case("local", steps=3))
    # Stages 1 and 2 do not read the keys of stage 3; moving state to the host changes no key.
    groups = {"zero3": [*ADMITTED], "zero3-offload": ["live weights"]}
    for group in groups.get(engine, ["communication"]):
        outcomes = worlds[2].run(train, Case(engine, steps=3, zero=ADMITTED[group]))
        apart = distance(outcomes, plain)
        assert max(apart.values()) < TOLERANCE, (group, apart)


def zero(**keys):
    return {"zero_optimization": keys}


SUMS = "under this engine: sums of rounded gradients give other losses"
HYBRID = "use --engine fsdp --set engine.hybrid_shard=true"
RELEASED = "the backward pass finds released weights"
REFUSED = [
    ({"prescale_gradients": True}, "must be false under this engine: stages 2 and 3 refuse it"),
    ({"gradient_predivide_factor": 2.0}, "must be 1.0 under this engine: stage 3 loses the factor, stage 2 refuses it"),
    ({"communication_data_type": "bf16"}, f"must be fp32 {SUMS}"),
    ({"data_types": {"grad_accum_dtype": "bf16"}}, f'must be {{"grad_accum_dtype": "fp32"}} {SUMS}'),
    (zero(zero_hpz_partition_size=2), f"must be 1 under this engine: the second copy of the weights misses what is loaded, and training gives NaN; {HYBRID}"),
    (zero(zero_quantized_weights=True), "must be false under this engine: weights in 8 bits give other losses, and do not run on a CPU"),
    (zero(zero_quantized_gradients=True), "must be false under this engine: gradients in 4 bits give other losses, and do not run on a CPU"),
    (zero(leaf_module={"classes": ["torch.nn.Linear"]}), f"is not supported by this engine: {RELEASED}"),
    (zero(stage3_module_granularity_threshold=1000), f"must be 0 under this engine: {RELEASED}"),
    (zero(mics_shard_size=2), f"is not supported by this engine: DeepSpeed has removed it; {HYBRID}"),
    (zero(round_robin_gradients=True), "is not supported by this engine: it reorders the weights that a checkpoint finds by position"),
    ({"sparse_gradients": True}, "is not supported by this engine"),
]  # fmt: skip


@pytest.mark.parametrize(("own", "problem"), REFUSED)
def test_what_trains_otherwise_is_refused_with_the_reason(own, problem):
    (conflict,) = conflicts(own, values())
    assert (conflict.problem, conflict.fix) == (problem, "leave it out")


@pytest.mark.parametrize(
    "own",
    [
        {"prescale_gradients": False, "gradient_predivide_factor": 1},
        {"communication_data_type": "fp32", "data_types": {"grad_accum_dtype": "fp32"}},
        zero(zero_hpz_partition_size=1, zero_quantized_weights=False),
        zero(leaf_module={}, round_robin_gradients=False),
        {"communication_data_type": None, "data_types": "auto"},
    ],
)
def test_values_that_change_nothing_are_accepted(own):
    assert conflicts(own, values()) == []
