"""Built-in data: EEG of simulated readers."""
