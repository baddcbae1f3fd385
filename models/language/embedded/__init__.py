"""The data sets that need no file: what every Python brings along, and a grammar of commands."""
