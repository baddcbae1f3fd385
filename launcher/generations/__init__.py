"""The lives of one training under Slurm: who owns a run folder, and how each of them ended."""
