"""What a run writes and prints: metrics, events, result, log and console."""
