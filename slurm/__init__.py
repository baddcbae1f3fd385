"""Slurm: job files, job environment, sbatch and the queue; never imports torch."""
