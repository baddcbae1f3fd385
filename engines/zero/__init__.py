"""DeepSpeed's ZeRO as an engine: its configuration, its state, its gradients."""
