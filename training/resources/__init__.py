"""Resource monitor, limits, throttling steps and out-of-memory recovery."""
