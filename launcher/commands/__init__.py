"""One module a command that a person types."""
