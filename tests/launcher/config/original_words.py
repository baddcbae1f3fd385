"""The options and settings that the originals have, with a value of each as users type it."""

import yaml

FILES = {
    "event_seg": """\
data: {dataset: MVSEC, data_path: data/mvsec, batch_size: 4, num_workers: 4,
  event_representation: voxel_grid, time_bins: 10, shuffle: true, validation_split: 0.2,
  sequences: [outdoor_day1], downsample_factor: 2}
model: {embedding_dims: [32, 64, 128, 256], alpha_values: [0.5, 0.5, 0.5, 0.5],
  layer_weights: [0.1, 0.4, 0.7, 1.0], regularized_layers: [0, 3], num_heads: [1, 2, 4, 8],
  dropout: 0.1, use_residual: true}
training: {epochs: 10, learning_rate: 0.0001, weight_decay: 0.0001, lr_scheduler: cosine,
  warmup_epochs: 2, use_gpt4o: false,
  azure_openai: {api_key: '', endpoint: '', deployment_name: x}}
logging: {save_dir: checkpoints/lite, log_interval: 5, eval_interval: 1, save_interval: 2,
  tensorboard: true}
""",
    "language": """\
{base_model: folder, use_2b_submodel: true, enable_mix_and_match: true,
  resource_efficient_mode: true, mac_mode: false, cpu_only_mode: false, learning_rate: 5.0e-5,
  batch_size: 4, num_epochs: 3, warmup_steps: 100, gradient_accumulation_steps: 16,
  max_sequence_length: 1024, train_split: 0.8, val_split: 0.1, test_split: 0.1,
  output_dir: models/mine, save_steps: 200, eval_steps: 50, use_gpu: false,
  mixed_precision: false, dataloader_num_workers: 1, max_ram_percent: 70.0,
  max_gpu_memory_percent: 75.0, max_gpu_percent: 75.0, max_swap_percent: 30.0,
  memory_check_interval: 15, checkpoint_save_frequency: 200, max_checkpoints: 5,
  checkpoint_dir: checkpoints, auto_resume: true}
""",
    "abr": """\
experiment: {name: mine, description: text, tags: [a, b], random_seed: 42}
data: {data_path: data.csv, valid_peaks_only: false, val_split: 0.15, augment: true,
  cfg_dropout_prob: 0.1}
model: {input_channels: 1, static_dim: 4, base_channels: 64, n_levels: 4, sequence_length: 200,
  signal_length: 200, num_classes: 5, num_transformer_layers: 3, num_heads: 8,
  use_cross_attention: true, use_positional_encoding: true, positional_type: sinusoidal,
  film_dropout: 0.15, dropout: 0.1, use_cfg: true, use_multi_film: true, use_attention_heads: true,
  predict_uncertainty: false, channel_multiplier: 2.0, use_enhanced_s4: true,
  use_learnable_timescales: true}
training: {batch_size: 64, num_epochs: 50, learning_rate: 0.0002, weight_decay: 0.01,
  use_amp: true, gradient_clip_norm: 1.0, gradient_accumulation_steps: 2, patience: 8,
  save_every: 5, num_workers: 8, pin_memory: true, prefetch_factor: 4, persistent_workers: true,
  use_balanced_sampler: false}
loss: {loss_weights: {signal: 1.0, peak_exist: 0.3, peak_latency: 0.8, peak_amplitude: 0.8,
  classification: 2.0, threshold: 0.6}, use_focal_loss: false, focal_alpha: 1.0, focal_gamma: 2.0, use_class_weights: true,
  peak_loss_type: huber, huber_delta: 1.0}
optimizer: {type: adamw, betas: [0.9, 0.95], eps: 1e-8}
scheduler: {type: cosine_warm_restarts, T_0: 5, T_mult: 1.5, eta_min: 1e-6, warmup_epochs: 2,
  factor: 0.5, patience: 5, step_size: 20, gamma: 0.5}
evaluation: {metrics: [f1_macro, balanced_accuracy], validate_every: 2, save_best_metric: f1_macro}
logging: {output_dir: null, use_tensorboard: true, use_wandb: false, wandb_project: mine,
  wandb_entity: null, log_level: INFO, log_every: 20}
inference: {temperature: 1.0}
checkpoint: {resume_from: null, save_best_only: true, save_last: false,
  save_optimizer_state: false, save_scheduler_state: false}
hardware: {gpu_ids: [0], distributed: false, dataloader_pin_memory: true, benchmark: true,
  deterministic: false}
advanced: {gradient_accumulation_steps: 2, label_smoothing: 0.05, use_mixup: false,
  mixup_alpha: 0.2, use_tta: false, tta_steps: 5,
  curriculum: {enabled: true, peak_start: 2, threshold_start: 4, class_start: 1, ramp_epochs: 3}}
classes: {class_weights: null}
validation: {use_cv: false, val_augment: false, test_split: 0.0}
clinical: {threshold_range: [0.0, 120.0]}
memory: {use_memory_efficient_attention: true, gradient_checkpointing: false,
  clear_cache_every: 100, use_half_precision_intermediates: true}
""",
    "doc_translation": """\
{trans_model_dir: pretrained/decoder, dit_model_dir: pretrained/global,
  nougat_model_dir: pretrained/local, image_processor_dir: utils/image_processor,
  zh_tokenizer_dir: utils/zh_tokenizer, en_tokenizer_dir: utils/en_tokenizer,
  qformer_config_dir: utils/qformer, image_dir: DoTA_dataset/imgs,
  zh_mmd_dir: DoTA_dataset/zh_mmd, en_mmd_dir: DoTA_dataset/en_mmd,
  split_json_file_path: DoTA_dataset/split_dataset.json, output_dir: models/mine,
  max_length: 1536, batch_size: 32, batch_size_per_gpu: 2, per_device_train_batch_size: 2,
  gradient_accumulation_steps: 16, gradient_checkpointing: true, eval_steps: 200, save_steps: 500,
  logging_steps: 20, fp16: true, learning_rate: 5.0e-5, num_train_epochs: 10, warmup_ratio: 0.05,
  dataloader_num_workers: 6, num_queries: 256, num_hidden_layers: 3, max_grad_norm: 1.0,
  load_best_model_at_end: true}
""",
    "eeg_text": """\
{ZUCO_ROOT: zuco_data, PROCESSED_DATA_DIR: processed_zuco, OUTPUT_DIR: outputs,
  MODEL_SAVE_DIR: models/mine, RESULTS_DIR: results, NUM_CHANNELS: 105, SAMPLING_RATE: 500,
  MAX_EEG_LENGTH: 800, MAX_TEXT_LENGTH: 128, HIDDEN_DIM: 256, NUM_TRANSFORMER_LAYERS: 4,
  NUM_ATTENTION_HEADS: 4, FEEDFORWARD_DIM: 1024, DROPOUT: 0.1, USE_SMALL_BART: true,
  BART_MODEL: facebook/bart-base, PRETRAIN_EPOCHS: 10, PRETRAIN_BATCH_SIZE: 4,
  PRETRAIN_LR: 5.0e-5, MASK_RATIO: 0.15, MASK_STRATEGY: remask, TRAIN_EPOCHS: 30, BATCH_SIZE: 1,
  LEARNING_RATE: 1.0e-5, WARMUP_STEPS: 500, WEIGHT_DECAY: 0.01, GRADIENT_CLIP: 0.5,
  USE_LORA: true, LORA_R: 8, LORA_ALPHA: 32, LORA_DROPOUT: 0.1,
  LORA_TARGET_MODULES: [q_proj, v_proj], DEVICE: cpu, NUM_WORKERS: 0, SEED: 42,
  GRADIENT_ACCUMULATION_STEPS: 8, USE_AMP: false, ENABLE_CPU_OPTIMIZATIONS: true,
  PIN_MEMORY: false, VAL_SPLIT: 0.2, TEST_SPLIT: 0.1, SAVE_EVERY_N_EPOCHS: 5,
  EARLY_STOPPING_PATIENCE: 10, MAX_GENERATION_LENGTH: 50, NUM_BEAMS: 5, LOG_INTERVAL: 50,
  WANDB_PROJECT: mine, USE_WANDB: false, CHANNEL_GROUPS: {broca: [27, 34, 33, 32]},
  TASKS: [task1-SR], SUBJECT_CODES: [ZAB]}
""",
}
"""The settings files of the originals, and the classes and options that stand for such a file."""

OPTIONS = {
    "event_seg": [
        *("--data_path data/mvsec", "--cpu", "--lite", "--resume runs/mine"),
        *("--output_dir results", "--visualize", "--num_samples 10"),
    ],
    "language": [
        *("--download-data", "--use-existing-data", "--continuous-learning"),
        *("--resource-efficient", "--mac", "--cpu-only", "--resume-from-checkpoint runs/mine"),
    ],
    "abr": [
        *("--batch_size 128", "--learning_rate 0.0003", "--num_epochs 25", "--num_workers 12"),
        *("--gpu_ids 0", "--output_dir results", "--ultra_fast", "--benchmark", "--logdir runs/x"),
    ],
    "doc_translation": [
        f"--{key} {value}"
        for key, value in yaml.load(FILES["doc_translation"], Loader=yaml.BaseLoader).items()
    ],
    "eeg_text": ["--logdir outputs/train_logs"],
}
"""The options of the originals' scripts, and that of TensorBoard."""


def lay_out(folder):
    """Files in `folder`, under the names that FILES and OPTIONS use."""
    for path in (
        *("data/mvsec/outdoor_day1/outdoor_day1_data.hdf5", "data.csv", "folder/config.json"),
        *("DoTA_dataset/split_dataset.json", "DoTA_dataset/imgs/2101.00001_1.png"),
        *("pretrained/decoder/config.json", "zuco_data/task1-SR/resultsZAB_SR.mat"),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
