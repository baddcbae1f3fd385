"""Built-in data: the text of the Python installation, and commands from a grammar."""
