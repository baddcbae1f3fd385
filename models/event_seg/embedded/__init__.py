"""Built-in recordings: moving shapes seen by a simulated event camera."""
