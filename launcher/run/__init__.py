"""A run: prepared, executed, supervised and restarted; one worker a rank."""
