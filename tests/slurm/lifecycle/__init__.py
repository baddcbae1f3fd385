"""Events of a job on a real Slurm, case by case, and their effect on the training."""
