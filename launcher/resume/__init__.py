"""Saved runs: find one, check compatibility, restore it, build its model."""
