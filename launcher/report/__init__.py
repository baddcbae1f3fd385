"""The report of runs: what was asked, what happened, and what came of it."""
