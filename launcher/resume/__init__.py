"""Resume of a run: find it, check compatibility, restore it."""
