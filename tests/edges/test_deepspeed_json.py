"""What a DeepSpeed config may ask trains as under local, or is refused with the reason."""

import pytest

from engines.zero.config import FREE, ZERO
from tests.engines.parity import Case, distance, train
from tests.engines.test_parity import TOLERANCE, able

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
    free = {key.removeprefix(f"{ZERO}.") for key in FREE if key.startswith(ZERO)}
    assert tried == free - {"offload_optimizer.pin_memory", "offload_param.pin_memory"}


@pytest.mark.slow
@able("zero3")
def test_admitted_keys_change_no_loss_norm_or_moment(worlds, engine):
    plain = worlds[1].run(train, Case("local", steps=3))
    for group, keys in ADMITTED.items():
        outcomes = worlds[2].run(train, Case(engine, steps=3, zero=keys))
        apart = distance(outcomes, plain)
        assert max(apart.values()) < TOLERANCE, (group, apart)
