"""Trackers that show a run while it trains: W&B and TensorBoard; none can end, block or slow it."""
