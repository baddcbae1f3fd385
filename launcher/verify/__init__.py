"""Replays the last checkpoint interval of a run and compares the results."""
