"""The zero engines: DeepSpeed's ZeRO with its config, state and gradients."""
