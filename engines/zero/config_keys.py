"""The keys of a DeepSpeed config, and which of them the settings decide."""

from __future__ import annotations

SETTINGS_BLOCKS = {
    "bf16": "precision",
    "bfloat16": "precision",
    "fp16": "precision",
    "optimizer": "optim",
    "scheduler": "schedule",
    "torch_autocast": "precision",
}
"""Blocks that repeat a setting, by its key; they are checked, not passed to DeepSpeed."""

SETTINGS_VALUES = frozenset(
    {
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "gradient_clipping",
    }
)
"""Single values that repeat a setting."""

FIXED = {
    "gradient_allreduce_op": "mean",
    "managed_gradient_accumulation": True,
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}
"""Values that these engines require."""

FREE = frozenset(
    {
        "communication_data_type",
        "comms_logger",
        "data_types",
        "disable_allgather",
        "disable_python_gc",
        "dump_state",
        "flops_profiler",
        "gradient_predivide_factor",
        "log_level",
        "memory_breakdown",
        "prescale_gradients",
        "steps_per_print",
        "timers",
        "wall_clock_breakdown",
        "zero_optimization",
    }
)
"""Keys that are passed to DeepSpeed as written."""

UNSUPPORTED = {
    "activation_checkpointing": "memory.activation_checkpointing",
    "aio": None,
    "amp": "precision",
    "autotuning": None,
    "checkpoint": "save",
    "comet": "track",
    "compile": "compile",
    "compression_training": None,
    "csv_monitor": "track",
    "curriculum_learning": None,
    "data_efficiency": None,
    "data_parallel_size": None,
    "dataloader_drop_last": None,
    "datastates_ckpt": "save",
    "eigenvalue": None,
    "elasticity": None,
    "expert_parallel": None,
    "graph_harvesting": None,
    "hybrid_engine": None,
    "keep_in_fp32_modules": "precision",
    "nebula": "save",
    "pipeline": None,
    "progressive_layer_drop": None,
    "quantize_training": None,
    "seq_parallel_communication_data_type": None,
    "sequence_parallel_size": None,
    "sparse_attention": None,
    "sparse_gradients": None,
    "tensor_parallel": None,
    "tensorboard": "track",
    "use_data_before_expert_parallelism": None,
    "vocabulary_size": None,
    "wandb": "track",
    "weight_quantization": None,
}
"""Keys that these engines do not support, with the setting to use instead."""

ZERO = frozenset(
    {
        "allgather_bucket_size",
        "allgather_partitions",
        "contiguous_gradients",
        "elastic_checkpoint",
        "enable_sanity_checks",
        "ignore_unused_parameters",
        "leaf_module",
        "load_from_fp32_weights",
        "log_trace_cache_warnings",
        "memory_efficient_linear",
        "offload_optimizer",
        "offload_param",
        "overlap_comm",
        "override_module_apply",
        "parameter_alignment",
        "pipeline_loading_checkpoint",
        "reduce_bucket_size",
        "reduce_scatter",
        "stage",
        "stage3_allgather_sequential",
        "stage3_gather_16bit_weights_on_model_save",
        "stage3_gather_fp16_weights_on_model_save",
        "stage3_max_live_parameters",
        "stage3_max_reuse_distance",
        "stage3_model_persistence_threshold",
        "stage3_module_granularity_threshold",
        "stage3_param_persistence_threshold",
        "stage3_prefetch_bucket_size",
        "stage3_use_all_reduce_for_fetch_params",
        "sub_group_size",
        "use_multi_rank_bucket_allreduce",
        "zero_hpz_partition_size",
        "zero_quantized_gradients",
        "zero_quantized_weights",
    }
)
"""Keys of `zero_optimization` that are passed to DeepSpeed as written."""

ZERO_FIXED = {"compute_grad_norm": True}
"""Values of `zero_optimization` that these engines require."""

ZERO_UNSUPPORTED = {
    "cpu_offload": "engine.name",
    "cpu_offload_param": "engine.name",
    "cpu_offload_use_pin_memory": "engine.name",
    "legacy_stage1": None,
    "mics_hierarchical_params_gather": None,
    "mics_shard_size": None,
    "round_robin_gradients": None,
    "save_muon_momentum_buffer_in_memory": None,
    "zenflow": None,
    "zero_quantized_nontrainable_weights": None,
    "zeropp_loco_param": None,
}
"""Keys of `zero_optimization` with a state that a checkpoint cannot represent."""

OFFLOAD = {
    "offload_optimizer": frozenset({"device", "pin_memory"}),
    "offload_param": frozenset({"device", "pin_memory"}),
}
"""Keys of the two offload blocks that are passed to DeepSpeed as written."""

OFFLOAD_UNSUPPORTED = frozenset(
    {
        "buffer_count",
        "buffer_size",
        "cpuadam_cores_perc",
        "fast_init",
        "max_in_cpu",
        "nvme_path",
        "pipeline_read",
        "pipeline_write",
        "ratio",
        "super_offload",
    }
)
"""Keys of the offload blocks for NVMe, partial offload or DeepSpeed's own Adam only."""
