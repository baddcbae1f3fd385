"""The forms in which pages and their translations are read."""
