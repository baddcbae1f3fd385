"""Submission of runs to Slurm."""
