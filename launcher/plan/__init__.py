"""Prediction of memory, traffic and time before a run, and what fits a machine."""
