"""Measures Gearshift side by side with its peers, one file a question."""
