"""What a run writes down: metrics, events, its result and a log for people."""
