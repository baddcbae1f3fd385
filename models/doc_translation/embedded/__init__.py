"""Built-in data: rendered pages in an artificial language with their translations."""
