"""Settings files of modes and models, and DeepSpeed configs."""
