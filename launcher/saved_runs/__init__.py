"""Finished runs: open one, and replay, evaluate, use or export its model."""
