"""Pages that are drawn from an artificial language, and what they say in another."""
