"""Going on with a run: which one, from which checkpoint, and what may change."""
