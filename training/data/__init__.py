"""Data loading: order, samples, batches, workers, and the feature cache."""
