"""A real Slurm cluster on one machine, created for a test and removed after it."""
