"""Readers of EEG recordings."""
