"""A real Slurm cluster on one machine, made for a test and thrown away after it."""
