"""Runs handed to Slurm: checked here for the world that they will have, queued, and followed."""
