"""Evaluation, early stopping and noise controls."""
