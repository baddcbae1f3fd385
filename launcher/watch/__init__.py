"""Shows runs from another process: state, progress, memory, from their files alone."""
