"""Built-in data: simulated patients."""
