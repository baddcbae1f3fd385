"""Learning on as new data arrives: what is watched, taken in, mixed with the old, and told."""
