"""Models: one Task per family, and custom tasks."""
