"""Settings: what there is, what was written where, what it comes to, and what is wrong with it."""
