"""Simulated patients, for a first run without a file."""
