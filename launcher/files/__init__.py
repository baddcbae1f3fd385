"""Settings files read with the line of every key."""
