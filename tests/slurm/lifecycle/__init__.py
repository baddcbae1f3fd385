"""What a real Slurm does to a job, row by row, and what becomes of the training."""
