"""Data, not code: what modes, models and DeepSpeed are told."""
