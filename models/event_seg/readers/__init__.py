"""Readers of recordings, one window at a time."""
