"""The recordings that EEG is read from."""
